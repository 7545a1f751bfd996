"""The manifest's entry of an input of texts and pictures: how an item becomes tokens and patches."""

from __future__ import annotations

from typing import Literal

import msgspec

from sie_frontend.images.entry import Resample
from sie_frontend.text.entry import Tokenization

ConversationStyle = Literal["embed", "rerank", "page"]


class Conversation(msgspec.Struct, frozen=True):
    """What the checkpoint's chat template writes: `before`, the system's text, `between`, the user's parts, `after`.

    A picture among the user's parts is `picture`, which has its token once.
    """

    before: str
    between: str
    picture: str
    after: str


class Patching(msgspec.Struct, frozen=True):
    """How a picture becomes patches: scaled with the filter `resample`, its edges whole squares of patches.

    `patch_size` is the edge of a patch in pixels, `merge_size` that of a square in patches, which is one token. A
    scaled picture has at least `min_pixels` and at most `max_pixels`. `table_side` is the edge of the table of learned
    positions, which is spread over every picture, and `window` that of a window in squares; 0 where there is none.
    `grouped`: the graph takes patches in groups that look at each other, which those of older builds do not.
    """

    patch_size: int
    merge_size: int
    min_pixels: int
    max_pixels: int
    resample: Resample
    table_side: int = 0
    window: int = 0
    grouped: bool = False


class MixedInput(msgspec.Struct, frozen=True):
    """Everything that turns texts and pictures into a row.

    `style` says what the user's parts are: `embed` has an item's pictures, then its text, under an instruction;
    `rerank` has instruction, query and document under the fixed `system`; `page` has a picture alone, or a text with
    `after` behind it, and several pictures of an item are as many rows. `picture_id` is the id of the token that
    stands for a square of patches, `forbidden` are texts that no user may write, `requires` is the message for an item
    that has nothing that the model reads.
    """

    tokenization: Tokenization
    patching: Patching
    conversation: Conversation
    style: ConversationStyle
    instruction: str
    picture_id: int
    forbidden: tuple[str, ...]
    requires: str
    system: str = ""
