"""`docs/http-api.md`: the HTTP contract for somebody who writes a client. Prose here, tables from the code."""

from __future__ import annotations

from string import Template

from sie_frontend.contract.responses import CONTRACT_VERSION

from sie_triton.pages import http_tables

_PAGE = Template("""\
# HTTP API

Generated from the code by `python -m sie_triton.pages`; do not edit.

This is SIE's HTTP contract, version $version, as the frontend serves it: all that the author of a client must know. A
server documents itself, too: `GET /docs` is a page to read, `GET /openapi.json` an OpenAPI 3.1 document. Python has
`sie_sdk` ([quick-start.md](quick-start.md#call)), and OpenAI's, Jina's and Cohere's clients work as they are
([integrations.md](integrations.md)). Where answers differ from SIE's own, on purpose,
[migrate-from-sie.md](migrate-from-sie.md#what-differs) says so.

## Routes

$routes

A key is asked for only where the server has a file of them ([keys.md](keys.md)): `Authorization: Bearer KEY`, for all
but `/livez`, `/readyz`, `/healthz`, `/openapi.json`, `/docs` and `/`, whose files lie below `/page/`. Nothing but `/`
redirects, and nothing is remembered from one request to the next but what a key has used of its limits. `/v1/status` is
not part of SIE's contract, and may get further fields.

## A first call

In JSON, from a shell:

```sh
curl -sS http://127.0.0.1:8080/v1/encode/sentence-transformers/all-MiniLM-L6-v2 \\
  -H 'Content-Type: application/json' -H 'Accept: application/json' \\
  -d '{"items": [{"id": "a", "text": "Cells make energy."}]}' | cut -c 1-90
```

```text
{"model":"sentence-transformers/all-MiniLM-L6-v2","items":[{"id":"a","dense":{"dims":384,…
```

In msgpack, which is smaller and quicker to read, from Python without an SDK:

```python
from urllib.request import Request, urlopen

import msgpack
import numpy as np

body = msgpack.packb({"items": [{"text": "Cells make energy."}], "params": {"output_dtype": "float16"}})
url = "http://127.0.0.1:8080/v1/encode/sentence-transformers/all-MiniLM-L6-v2"
with urlopen(Request(url, body, {"Content-Type": "application/msgpack"})) as response:
    answer = msgpack.unpackb(response.read(), strict_map_key=False)
values = answer["items"][0]["dense"]["values"]
vector = np.frombuffer(values[b"data"], values[b"type"]).reshape(values[b"shape"])
print(vector.shape, vector.dtype)
```

```text
(384,) float16
```

## Formats

- A request to `/v1/encode` and `/v1/score` is read as msgpack where `Content-Type` holds `application/msgpack` or
  `application/x-msgpack`, and as JSON otherwise, also where there is no such header.
- Their answer is JSON where `Accept` holds `application/json` and no msgpack type, and msgpack otherwise: without the
  header, with `*/*`, with `text/html`. Quality values do not count, and neither does the format of the request.
- Everything else is JSON or text: the lists of models, the routes of OpenAI, Jina and Cohere, and every error.
- Bytes, such as those of a picture, are binary in msgpack and standard base64 in JSON.
- JSON has every digit: a float32 number is written as the float64 of the same value.
- Unknown fields are ignored, but for those of `/v1/rerank` and `/v2/rerank`.

### Arrays in msgpack

An array is a map of five pairs in this order, whose **keys are binary**, as `msgpack-numpy` writes them. With keys of
text it would be an ordinary map.

$array

A scalar has `nd` false, `type` and `data`. An array has at most eight axes, and one of these dtypes:

$array_dtypes

What the server sends is little-endian. The array `[0.5, -1.0]` in float32 is these bytes:

```text
85 c4026e64 c3 c40474797065 a33c6634 c4046b696e64 c400 c4057368617065 9102 c40464617461 c408 0000003f 000080bf
```

In JSON an array is a list of numbers, and token vectors are a list of lists.

## Model ids

An id is one of `GET /v1/models`, exact and case-sensitive. It stands in the path as it is: slashes and colons need no
escape, and where something else is escaped, it is decoded once. `model:profile` names a profile; the profile
`default` has the bare id, and `model:default` is not an id. Answers repeat the id as it was asked for.

## Encode

`POST /v1/encode/{model}`

$encode_request

`params`, all of which may be left out:

$encode_params

An item:

$item

A text may be empty, and one that is too long is cut. An item without what the model reads is a 400, and one item that
is refused refuses the request: there are no errors of single items.

### Images

An image is a picture in JPEG, PNG, GIF, WebP, BMP or TIFF; its first bytes tell which, and `format` is not read. An
image:

$image

A model whose `inputs` have `image` reads the images of an item and leaves its text unread; an empty list is no images.
Texts and images may be mixed in one request. Several images of an item give the mean of their vectors, which are at
unit length one by one; the mean is not brought to unit length again. Of a page model (`multivector`) they give the
vectors of all images, one behind the other, and a query (`is_query`) with a text is read by its text. Instructions and
options of texts change nothing. Qwen3-VL reads the images and the text of an item together, under an instruction
([images.md](images.md#qwen3-vl)).

The first frame is read, and alpha is dropped: the colours show that it hides. EXIF's orientation is not followed, but
for TIFF's. The options `image_alpha` and `image_orientation` change both. The size is read before anything is decoded.
What cannot be decoded is a 400 that names the image:

```text
image data is not a decodable image - at `$$.items[0].images[0].data`
```

### Options

`params.options` replaces the options of the profile key by key; a null replaces, too. `options.profile` takes
another profile's options; its weights stay those of the id that is asked. Options that a model does not know are
ignored.

$encode_options

Some things can be said in two places. The first one in this order counts:

| What | Order |
|---|---|
| `output_types` | options, parameters, `["dense"]` |
| `output_dtype` | parameters, options, `float32` |
| `instruction` | parameters, options |

A model that has no dense output therefore needs `output_types`. Which options count depends on the
adapter; [models.md](models.md) names each model's.

### Around a text

With a template, the text is put into it: `query_template` for a query, `doc_template` otherwise, with the
placeholders `{text}` and `{instruction}`; literal braces are written twice. Without one, an instruction stands before
the text with a space between. `default_instruction` counts for queries that bring no instruction. Adapters that run a
checkpoint as sentence-transformers does put its own prompts before texts without a template, and then an instruction
has no effect.

### The answer

$encode_answer

An item has the outputs that were asked for and no others:

$encoded_item

| Output | Fields | Array |
|---|---|---|
| `dense` | `dims`, `dtype`, `values` | `[dims]` |
| `sparse` | `dims`, `dtype`, `indices`, `values` | int32 `[n]`, token numbers, and `[n]`, their weights |
| `multivector` | `token_dims`, `num_tokens`, `dtype`, `values` | `[num_tokens, token_dims]` |

`dims` and `token_dims` are the model's. Packed bits have an eighth of that many bytes, rounded up, and the label
`binary`. A dense vector made by MUVERA has the `dims` of its array, and the label `uint8` where it is packed; a
sparse one made by SMVE has `dims` null.

`timing` has milliseconds:

$timing

`usage` has what was processed; counts that are not known are left out:

$usage

### Output dtypes

$dtypes

Each vector, and each token's, is narrowed by itself. No scale is sent: what is narrow keeps the direction of a vector
and not its length. Halves are rounded to even, and a vector whose numbers are all equal is 0 in `uint8`.

## Score

`POST /v1/score/{model}`, for models whose `outputs` have `score`.

$score_request

`options`:

$score_options

Items are as those of encode. `instruction` stands before the query, or within the prompt of a reranker that has one.

$score_answer

A ranking has one entry for each item, best first; equal scores keep the order of the request:

$score_entry

What a score means depends on the model: a probability, a raw logit, or the sum of a late interaction.

## Embeddings

`POST /v1/embeddings`, as OpenAI's clients call it.

$embeddings_body

A text that begins with `data:image/` or `data:;` is an image to a model that reads images, and must end in
`;base64,` and base64; to any other model it is a text like another.

Vectors are dense and float32, and an instruction of the profile is left out. `dimensions` may be what the
model has, or one of the widths that its checkpoint was trained to be cut to: then a vector's first numbers are left, at
unit length where the profile normalises. Lists of token numbers are refused. The answer:

$embeddings_answer

An entry of `data`:

$embedding

## Rerank

`POST /v1/rerank`, as Jina's clients and Cohere's first ones call it; the body is JSON whatever its content type says.
A field that is not listed is a 400 that names it.

$rerank_body

`rank_fields` and `max_chunks_per_doc` are taken from requests whose `X-Fern-SDK-Name` is `cohere` or whose
`User-Agent` begins with `litellm/`. The answer has `model`, `results` and `usage`; a result:

$ranked

`POST /v2/rerank`, as Cohere's newer clients call it, takes these fields too, from anybody:

$rerank_more

Its answer has `id`, `results` and `meta`, which counts tokens.

## Models

`GET /v1/models` has every id twice: SIE's list is `models`, OpenAI's is `data`. `GET /v1/models/{model}` is one entry
of `models`, with a `certificate`: what the vectors were compared with when the model was built
([checkpoints.md](checkpoints.md#the-certificate)). Asking loads nothing.

$model_answer

## Health and metrics

`/livez` is 200 `ok` while the process lives. `/readyz` and `/healthz` are 200 `ok` while every model that must answer
does, and 503 `not ready` otherwise. `/metrics` is Prometheus' text ([operations.md](operations.md#metrics)).
`/admin/status` and `POST /admin/reload` are for whoever operates the server
([many-models.md](many-models.md#while-it-runs)); with keys they need one of the verb `admin`.

## Errors

An error is JSON, whatever the client accepts:

```json
{"detail": {"code": "MODEL_NOT_FOUND", "message": "Model 'acme/small' not found"}}
```

`/v1/embeddings` and `/v1/rerank` have OpenAI's shape, `{"error": {"message", "type", "param", "code"}}`; `/v2/rerank`
has that with a `message` beside it. What has no code is `{"detail": …}` on every route, and 503 without a code is
`{"error": "Service shutting down", "detail": …}`. Further fields may stand beside `code`. `code` and the status are
for programs; `message` is for people and may change.

$errors

Send a request again where the answer has `Retry-After`, after that many seconds; what has none is final. In OpenAI's
shape, a wrong header and a wrong field of the rerankers' routes have the code `INVALID_INPUT`, and `dimensions` that a
model lacks have `unsupported_field`.

Of several mistakes the answer names the first, in this order: the headers, the size of the body, its shape, the model,
its options, whether the model answers, the number of items, their texts. So an unknown model with a broken body is a
400.

`POST /v1/extract/{model}` and `POST /v1/generate/{model}` are SIE's, and nothing here does them: the answer is 400
for a model that is served, else 404, and names the routes that there are.

## Limits

$limits

The limit of a text includes what a request puts around it, and all texts of a request together may have as many bytes
as a body. More items than a request may hold are computed in parts on `/v1/embeddings` and the routes of
rerankers, and are a 400 on `/v1/encode` and `/v1/score`.

## Headers

Of a request:

$request_headers

Of an answer, where they apply; errors of SIE's own routes have `x-sie-runtime-instance`, too:

$response_headers
""")


def render() -> str:
    """The whole page."""
    return _PAGE.substitute(
        version=CONTRACT_VERSION,
        routes=http_tables.routes(),
        array=http_tables.fields("NumpyArray"),
        array_dtypes=http_tables.array_dtypes(),
        encode_request=http_tables.fields("EncodeRequest"),
        encode_params=http_tables.fields("EncodeParams"),
        item=http_tables.fields("Item"),
        image=http_tables.fields("Image"),
        encode_options=http_tables.fields("EncodeOptions"),
        encode_answer=http_tables.fields("EncodeAnswer"),
        timing=http_tables.fields("Timing"),
        usage=http_tables.fields("UsageAnswer"),
        encoded_item=http_tables.fields("EncodedItem"),
        dtypes=http_tables.dtypes(),
        score_request=http_tables.fields("ScoreRequest"),
        score_options=http_tables.fields("ScoreOptions"),
        score_answer=http_tables.fields("ScoreAnswer"),
        score_entry=http_tables.fields("ScoreEntry"),
        embeddings_body=http_tables.fields("EmbeddingsBody"),
        embeddings_answer=http_tables.fields("EmbeddingsAnswer"),
        embedding=http_tables.fields("Embedding"),
        rerank_body=http_tables.fields("RerankBody"),
        ranked=http_tables.fields("Ranked"),
        rerank_more=http_tables.fields("RerankV2Body", without="RerankBody"),
        model_answer=http_tables.fields("ModelAnswer"),
        errors=http_tables.errors(),
        limits=http_tables.limits(),
        request_headers=http_tables.request_headers(),
        response_headers=http_tables.response_headers(),
    )
