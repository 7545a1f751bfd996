"""`ImageEmbedding`: one vector a picture."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sie_sdk.images import detect_format

from sie_triton_fastembed._batches import batches, in_order, request_parts, requests_in_flight
from sie_triton_fastembed._remote import Remote
from sie_triton_fastembed._server import Output, Server
from sie_triton_fastembed._sizes import size_of
from sie_triton_fastembed.common.model_description import DenseModelDescription
from sie_triton_fastembed.common.types import ImageInput, NumpyArray

if TYPE_CHECKING:
    from sie_sdk.types import ModelInfo


class ImageEmbedding(Remote):
    """Fastembed's `ImageEmbedding` on a server: the vectors of pictures, float32, of shape `[dim]` and length 1.

    `Remote` says what the arguments mean. A picture is a path, a file that is open for reading, or an image of Pillow.
    Files travel as they are, and what the server does not read is decoded here, with Pillow; images of Pillow travel
    as PNG. As in Fastembed, EXIF's orientation is not followed and alpha is dropped.
    """

    output: ClassVar[Output] = "dense"
    sees: ClassVar[bool] = True

    _embedding_size: int | None = None

    @classmethod
    def _description(cls, info: ModelInfo, server: Server) -> DenseModelDescription:
        return DenseModelDescription(**cls._common_fields(info, server), dim=info.get("dims", {}).get("dense"))

    @classmethod
    def get_embedding_size(cls, model_name: str) -> int:
        """Numbers in a vector of a model that the server of `SIE_BASE_URL` serves.

        Raises `ModelNotServedError`, which is a `ValueError`, and `ServerUnreachableError`.
        """
        server = Server()
        return size_of(server.find((model_name,), "dense", sees=True), "dense", server)

    @property
    def embedding_size(self) -> int:
        """Numbers in a vector of this model."""
        if self._embedding_size is None:
            self._embedding_size = size_of(self._served(), "dense", self._server)
        return self._embedding_size

    def embed(
        self,
        images: ImageInput | Iterable[ImageInput],
        batch_size: int = 16,
        parallel: int | None = None,
        **kwargs: Any,
    ) -> Iterable[NumpyArray]:
        """One vector `[dim]` in float32 for each picture, in order.

        Reads `images` batch by batch, and only when a vector is taken. `parallel` batches are in flight at once, 8
        where it is 0 and one where it is None; no process is started. Other keywords have no effect. Raises
        `FileNotFoundError` for a path that is not there, what Pillow raises for a file that it does not read, and
        `RequestError` for a picture that the server refuses.
        """
        limit = requests_in_flight(parallel)
        model = self._served()["name"]

        def encoded(batch: list[ImageInput]) -> list[NumpyArray]:
            return [vector for part in request_parts(map(_bytes, batch), len) for vector in self._asked(model, part)]

        given: Any = [images] if _is_one(images) else images
        for vectors in in_order(encoded, batches(given, batch_size), limit):
            yield from vectors

    def _asked(self, model: str, pictures: Sequence[bytes]) -> Iterator[NumpyArray]:
        items = [{"images": [picture]} for picture in pictures]
        for result in self._server.encode_items(model, items, "dense", options=self._options):
            yield np.array(result["dense"], dtype=np.float32)


def _is_one(images: Any) -> bool:
    """Whether it is one picture: a path, a file or an image of Pillow."""
    return isinstance(images, str | Path) or hasattr(images, "read") or hasattr(images, "convert")


def _bytes(image: Any) -> bytes:
    """The encoded picture that travels."""
    if hasattr(image, "convert"):
        return _png(image)
    data: bytes = image.read() if hasattr(image, "read") else Path(image).read_bytes()
    try:
        detect_format(data)
    except ValueError:
        # Of another format, or none at all: here it is the same Pillow that Fastembed would ask.
        return _png(import_module("PIL.Image").open(io.BytesIO(data)))
    return data


def _png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
