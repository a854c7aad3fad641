from __future__ import annotations

from django import forms

from guestbook.models import Entry


class MessageField(forms.CharField):
    """A text of several lines, counted as the browser counts it.

    A browser holds a line end as one character and sends it as two, so that a message it let through
    would be too long here.
    """

    widget = forms.Textarea(attrs={"rows": 4})

    def to_python(self, value: object) -> str:
        return super().to_python(value).replace("\r\n", "\n")


class EntryForm(forms.ModelForm):
    message = MessageField(max_length=1000, label="Your message")

    class Meta:
        model = Entry
        fields = ["name", "message"]
        labels = {"name": "Your name"}
        widgets = {"name": forms.TextInput(attrs={"autocomplete": "name"})}
