"""Rules on releases and limits."""

from __future__ import annotations

from lint.builders import identity_config, identity_graph, replaced
from lint.builds import copies, foreign, torchscript

from .case import Case, texts

TENSORFLOW = identity_config(backend='platform: "tensorflow_savedmodel"')
IMAGES = identity_config(max_batch_size=128, dims="[ 3, 224, 224 ]")
IMAGES_GRAPH = identity_graph(("b", 3, 224, 224), output=("b", 3, 224, 224))


CASES: dict[str, Case] = {
    "L801": Case(
        foreign(TENSORFLOW, "model.savedmodel/saved_model.pb"),
        foreign(TENSORFLOW, "model.savedmodel/saved_model.pb"),
        triton="25.03",
        good_triton="25.02",
    ),
    "L802": Case(foreign(TENSORFLOW, "model.savedmodel/saved_model.pb"), copies(identity_config()), triton="25.02"),
    "L803": Case(torchscript("INPUT__0", "OUTPUT__0"), copies(identity_config())),
    "L804": Case(
        foreign(identity_config(backend='platform: "torch_aoti"'), "model.pt2"),
        foreign(identity_config(backend='platform: "torch_aoti"'), "model.pt2"),
        triton="26.02",
        good_triton="26.03",
    ),
    "L805": Case(copies(IMAGES, IMAGES_GRAPH), copies(replaced(IMAGES, "128", "32"), IMAGES_GRAPH), triton="25.06"),
    "L806": texts(identity_config(more="response_cache { enable: true }")),
}
