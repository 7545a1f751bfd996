"""What the server says of its own HTTP API: the OpenAPI document and a page to read. Nothing here serves a model."""
