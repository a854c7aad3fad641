from __future__ import annotations

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.log import log_response
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from guestbook.forms import EntryForm
from guestbook.models import Entry

SHOWN = 50
"""How many entries the page shows, the newest first."""


@require_http_methods(["GET", "HEAD", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """Show the guestbook, and write in it."""
    form = EntryForm(request.POST if request.method == "POST" else None, label_suffix="")
    if form.is_valid():
        form.save()
        # A reload of the page that follows does not post again.
        return redirect("index")
    status = 422 if form.is_bound else 200
    return render(request, "guestbook/index.html", {"form": form, "entries": Entry.objects.all()[:SHOWN]}, status=status)


@never_cache
@require_safe
def health(request: HttpRequest) -> HttpResponse:
    """Say whether a visitor would be served: the database answers, and its tables are there."""
    try:
        Entry.objects.exists()
    except DatabaseError as error:
        response = HttpResponse("the database does not answer\n", content_type="text/plain", status=503)
        # Django logs a 503 by its path alone, unless it was logged already: so the one line says why.
        log_response("The database does not answer: %s", error, response=response, request=request)
        return response
    return HttpResponse("ok\n", content_type="text/plain")
