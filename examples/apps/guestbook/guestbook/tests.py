from __future__ import annotations

import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from django.db import connection
from django.test import SimpleTestCase, TestCase, override_settings

from guestbook.models import Entry
from guestbook.secret import secret_key
from guestbook.views import SHOWN

# Tests need no collectstatic.
PLAIN_NAMES = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}


@override_settings(STORAGES=PLAIN_NAMES)
class PageTests(TestCase):
    def test_the_page_has_a_heading_a_style_sheet_and_a_form(self) -> None:
        page = self.client.get("/")
        self.assertContains(page, "<h1>Guestbook</h1>", html=True)
        self.assertContains(page, '<link rel="stylesheet" href="/static/guestbook/style.css">', html=True)
        for name in ("csrfmiddlewaretoken", "name", "message"):
            self.assertContains(page, f'name="{name}"', count=1)

    def test_what_is_posted_can_be_read_back(self) -> None:
        answer = self.client.post("/", {"name": "Ada", "message": "Good day\r\nto you"})
        self.assertRedirects(answer, "/")
        self.assertContains(self.client.get("/"), "Good day\nto you")

    def test_markup_is_shown_and_not_run(self) -> None:
        self.client.post("/", {"name": "<b>Eve</b>", "message": "<script>alert(1)</script>"})
        page = self.client.get("/")
        self.assertContains(page, "&lt;script&gt;alert(1)&lt;/script&gt;")
        self.assertContains(page, "&lt;b&gt;Eve&lt;/b&gt;")
        self.assertNotContains(page, "<script")

    def test_the_newest_entries_come_first_and_the_oldest_not_at_all(self) -> None:
        for number in range(SHOWN + 1):
            Entry.objects.create(name=f"visitor {number}", message="Hello")
        shown = [entry.name for entry in self.client.get("/").context["entries"]]
        self.assertEqual(shown, [f"visitor {number}" for number in range(SHOWN, 0, -1)])

    def test_an_invalid_post_is_answered_beside_the_fields_and_not_kept(self) -> None:
        with self.assertLogs("django.request", "WARNING"):
            answer = self.client.post("/", {"name": "x" * 81, "message": " "})
        self.assertEqual(answer.status_code, 422)
        self.assertFormError(answer.context["form"], "name", "Ensure this value has at most 80 characters (it has 81).")
        self.assertFormError(answer.context["form"], "message", "This field is required.")
        self.assertContains(answer, 'aria-invalid="true"', count=2, status_code=422)
        self.assertFalse(Entry.objects.exists())

    def test_a_line_end_counts_as_one_character(self) -> None:
        self.client.post("/", {"name": "Ada", "message": "x" * 500 + "\r\n" + "x" * 499})
        self.assertTrue(Entry.objects.exists())

    def test_a_post_without_a_token_is_refused(self) -> None:
        client = self.client_class(enforce_csrf_checks=True)
        with self.assertLogs("django.security.csrf", "WARNING"):
            self.assertEqual(client.post("/", {"name": "Eve", "message": "Hello"}).status_code, 403)

    def test_a_post_over_https_on_a_port_of_its_own_is_taken(self) -> None:
        client = self.client_class(
            enforce_csrf_checks=True,
            headers={"host": "testserver:8443", "origin": "https://testserver:8443", "x-forwarded-proto": "https"},
        )
        token = client.get("/").context["csrf_token"]
        answer = client.post("/", {"name": "Ada", "message": "Hello", "csrfmiddlewaretoken": str(token)})
        self.assertEqual((answer.status_code, answer["Location"]), (302, "/"))


class HealthTests(TestCase):
    def test_it_is_well_with_its_tables(self) -> None:
        answer = self.client.get("/health/")
        self.assertEqual((answer.status_code, answer.content), (200, b"ok\n"))
        self.assertTrue(answer["Content-Type"].startswith("text/plain"))
        self.assertIn("no-store", answer["Cache-Control"])

    def test_it_is_not_without_and_says_so_once(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE guestbook_entry")
        with self.assertLogs("django") as logs:
            answer = self.client.get("/health/")
        self.assertEqual(answer.status_code, 503)
        self.assertIn("no-store", answer["Cache-Control"])
        (line,) = logs.output
        self.assertIn("no such table", line)


class SecretKeyTests(SimpleTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / "secret-key"

    def test_it_is_made_once_and_for_its_owner_alone(self) -> None:
        first = secret_key(self.file)
        self.assertGreaterEqual(len(first), 50)
        self.assertEqual(secret_key(self.file), first)
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)

    def test_all_who_ask_at_once_get_the_same(self) -> None:
        with ThreadPoolExecutor(16) as pool:
            keys = set(pool.map(secret_key, [self.file] * 64))
        self.assertEqual(len(keys), 1)
        self.assertEqual(list(self.file.parent.iterdir()), [self.file])
