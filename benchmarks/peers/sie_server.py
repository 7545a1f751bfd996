"""SIE's own server over HTTP: as installed, or told to use every core."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers import Files, HttpServer, sie_wire

_BUNDLE = """\
sie_id: {model_id}
weights_path: {checkpoint}
inputs: {{text: true, image: false, audio: false, video: false}}
tasks: {{encode: {{dense: {{dim: 384}}, sparse: null, multivector: null}}, score: null, extract: null}}
max_sequence_length: 256
profiles:
  default:
    max_batch_tokens: 16384
    compute_precision: null
    adapter_path: sie_server.adapters.sentence_transformer:SentenceTransformerDenseAdapter
    adapter_options: {{loadtime: {{trust_remote_code: false}}, runtime: {{pooling: mean, normalize: true}}}}
"""


def server(files: Files, port: int, variant: str, cache: Path) -> HttpServer:
    """`variant` is empty, or `all-cores`."""
    models = cache / "sie-server-models"
    models.mkdir(parents=True, exist_ok=True)
    bundle = _BUNDLE.format(model_id=files.model_id, checkpoint=files.checkpoint)
    (models / "model.yaml").write_text(bundle)
    command = ["sie-server", "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    command += ["--models-dir", str(models), "--preload", files.model_id, "--no-hf-fallback"]
    threads = {"SIE_TORCH_NUM_THREADS": str(files.cores)} if variant == "all-cores" else {}
    return HttpServer(
        command=command,
        port=port,
        path=f"/v1/encode/{files.model_id}",
        ready_path="/readyz",
        content_type=sie_wire.CONTENT_TYPE,
        request=sie_wire.request,
        vectors=sie_wire.vectors,
        environment={"HF_HUB_OFFLINE": "1", **threads},
    )
