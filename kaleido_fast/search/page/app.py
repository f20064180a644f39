"""The server: one page, its pictures, /api/search, /api/reasons and /health.

All that it reads lies in the index, in the folders that the index names, and in this package.
"""

import io
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, Request, Response, UploadFile
from fastapi.responses import JSONResponse
from fastapi.templating import Jinja2Templates
from PIL import Image
from starlette.concurrency import run_in_threadpool

from kaleido_fast.search.folder import DIGITS
from kaleido_fast.search.index import KaleidoIndex
from kaleido_fast.search.page.limits import Limits
from kaleido_fast.search.page.reasons import reasons
from kaleido_fast.search.result import Query
from kaleido_fast.search.shown import thumbnail

FILES = Path(__file__).parent / "files"
PICTURE_SIDE = 360  # pixels of a result's picture
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
}
DISCARDED = 8  # times the limit of a body that are read and dropped, so that its sender reads the answer


class TooBusy(Exception):
    """More searches wait than the limit allows."""


class Turns:
    """Lets some searches run at once and others wait."""

    def __init__(self, limits: Limits) -> None:
        self._running, self._places = threading.Semaphore(limits.running), threading.Semaphore(limits.running + limits.waiting)

    @contextmanager
    def one(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise TooBusy
        try:
            with self._running:
                yield
        finally:
            self._places.release()


class BodyLimit:
    """Answers 413 to a body that is too large, before anything is made of it."""

    def __init__(self, app: Callable[..., Awaitable[None]], limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self._app(scope, receive, send)
            return
        body, size, more, most = bytearray(), 0, True, self._limits.body_bytes
        while more and size <= most * DISCARDED:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size <= most:
                body += part
        if size > most:
            await _refusal(413, self._limits.too_large)(scope, receive, send)
            return
        messages = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Any:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)


def create_app(index: KaleidoIndex, limits: Limits = Limits()) -> FastAPI:  # noqa: B008  frozen
    """The server of an opened index."""
    app = FastAPI(title="kaleido_fast search", docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, limits=limits)
    templates, turns = Jinja2Templates(FILES), Turns(limits)
    max_side = index.encoder.pretrained.preprocessing.max_side

    @app.exception_handler(ValueError)
    async def refuse(request: Request, error: ValueError) -> JSONResponse:
        return _refusal(400, str(error))

    @app.exception_handler(TooBusy)
    async def wait(request: Request, error: TooBusy) -> JSONResponse:
        return _refusal(503, "too many searches at once; try again in a moment")

    @app.middleware("http")
    async def headers(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call(request)
        response.headers.update(HEADERS)
        return response

    @app.get("/")
    def page(request: Request) -> Response:
        kinds = sorted({name for name in (*index.header.categories, *index.header.subcategories) if name}, key=str.casefold)
        return templates.TemplateResponse(request, "page.html", {
            "products": f"{len(index):,}", "categories": kinds, "upload_mib": limits.upload_mib,
            "letters": limits.query_letters})

    @app.get("/page.css")
    def style() -> Response:
        return Response((FILES / "page.css").read_text("utf-8"), media_type="text/css")

    @app.get("/page.js")
    def script() -> Response:
        return Response((FILES / "page.js").read_text("utf-8"), media_type="text/javascript")

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok", "products": len(index), "photographs": index.header.photographs,
                "model": index.header.model[:DIGITS]}

    def query(text: str, like: str, data: bytes) -> Query:
        return Query(limits.check_text(text), limits.picture(data, max_side) if data else None, limits.check_text(like))

    def found(asked: Callable[[], Query], category: str, k: int) -> dict[str, Any]:
        if not 1 <= k <= limits.most_results:
            raise ValueError(f"k={k} must be between 1 and {limits.most_results}")
        with turns.one():
            wanted = asked()
            hits = index.search(wanted.text, image=wanted.image, like=wanted.like, k=k, category=limits.check_text(category))
        return {"hits": [hit.values() for hit in hits]}

    @app.get("/api/search")
    def search(text: str = "", like: str = "", category: str = "", k: int = 24) -> dict[str, Any]:
        return found(lambda: query(text, like, b""), category, k)

    @app.post("/api/search")
    async def search_with_picture(
        text: Annotated[str, Form()] = "", like: Annotated[str, Form()] = "", category: Annotated[str, Form()] = "",
        k: Annotated[int, Form()] = 24, image: Annotated[UploadFile | None, File()] = None,
    ) -> dict[str, Any]:
        data = await image.read() if image else b""
        if image is not None and not data:
            raise ValueError("the photograph is empty; send another")
        return await run_in_threadpool(found, lambda: query(text, like, data), category, k)

    @app.post("/api/reasons")
    async def why(
        product: Annotated[int, Form()], photograph: Annotated[int, Form()] = 0, text: Annotated[str, Form()] = "",
        like: Annotated[str, Form()] = "", image: Annotated[UploadFile | None, File()] = None,
    ) -> dict[str, Any]:
        data = await image.read() if image else b""

        def compute() -> dict[str, Any]:
            with turns.one():
                return reasons(index, query(text, like, data), known(product), photograph).values()

        return await run_in_threadpool(compute)

    @app.get("/photographs/{product}/{number}")
    def photograph(product: int, number: int) -> Response:
        return picture(lambda: thumbnail(index.photograph(known(product), number), PICTURE_SIDE))

    @app.get("/squares/{product}/{number}")
    def square(product: int, number: int) -> Response:
        return picture(lambda: _jpeg(Image.fromarray(index.square(known(product), number))))

    def picture(read: Callable[[], bytes]) -> Response:
        try:
            return Response(read(), media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})
        except (ValueError, OSError):  # a message would name folders
            return _refusal(404, "this photograph cannot be read")

    def known(product: int) -> int:
        if not 0 <= product < len(index):
            raise ValueError(f"no product {product}; this index has {len(index):,}, counted from 0")
        return product

    return app


def run(app: FastAPI, host: str, port: int) -> None:
    """Serve until the process is stopped."""
    import uvicorn

    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_keep_alive=30)


def _refusal(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()
