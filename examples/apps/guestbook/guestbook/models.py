from __future__ import annotations

from django.db import models


class Entry(models.Model):
    """What one visitor wrote."""

    name = models.CharField(max_length=80)
    message = models.TextField(max_length=1000)
    written_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        # Two entries may share an instant; the key keeps their order.
        ordering = ["-written_at", "-pk"]
        verbose_name_plural = "entries"

    def __str__(self) -> str:
        return f"{self.name}, {self.written_at:%Y-%m-%d %H:%M}"
