"""The ASGI application: routes, middleware and rendering. No logic of its own."""
