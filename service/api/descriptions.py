"""Descriptions of all operations in the OpenAPI documents, for readers of the API."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute

V2 = "/v2/models/{model}"
ADMIN, REPOSITORY = "/admin/models", "/v2/repository/models/{model}"
SCORE = "Returns click probabilities of the candidates, from the user's stored or given history."
# By method and path; operations of a version are those of its model.
DESCRIPTIONS = {
    "POST /v1/score": SCORE,
    f"POST {V2}/infer": f"{SCORE} Tensors are JSON or binary data.",
    "POST /v1/events": "Appends clicks to histories. An event with a key is applied once. The next "
    "score of the user sees them.",
    "POST /v1/embeddings": "Returns unit vectors of texts or of their token ids, in OpenAI's form; "
    "with `late_chunking` also of spans of the texts.",
    "GET /v1/items/{item_id}": "Returns the stored features of an item.",
    "PUT /v1/items/{item_id}": "Creates or replaces an item. Every feature is required.",
    "PATCH /v1/items/{item_id}": "Changes the given features and keeps the others.",
    "DELETE /v1/items/{item_id}": "Removes an item. As an unknown item it then has the score null.",
    "PUT /v1/users/{user_id}": "Creates or replaces a user's record. Every feature is required.",
    "PATCH /v1/users/{user_id}": "Changes the given features and keeps the others.",
    "DELETE /v1/users/{user_id}": "Removes a user's record. The history stays.",
    "GET /livez": "Answers 200 while the event loop of the process runs.",
    "GET /readyz": "Answers 200 once a model is loaded, verified against its golden answers and "
    "warmed up; 503 before, and while the service shuts down.",
    "GET /metrics": "Returns the metrics of all worker processes in Prometheus's text format.",
    "GET /v2": "Returns name, version and supported extensions of the server.",
    "GET /v2/health/live": "Answers like /livez.",
    "GET /v2/health/ready": "Answers like /readyz.",
    "GET /v2/models/stats": "Returns counts and times of every version in memory.",
    f"GET {V2}": "Returns the versions in memory, and names, types and shapes of the tensors.",
    f"GET {V2}/ready": "Answers 200 while the version is in memory and the service is ready.",
    f"GET {V2}/config": "Returns the model configuration in Triton's format.",
    f"GET {V2}/stats": "Returns counts and times of the versions in memory, or of the named one.",
    f"GET {ADMIN}": "Returns all versions with state and roles, and what each process serves.",
    f"GET {ADMIN}/{{version}}": "Returns state, roles and counts of a version.",
    f"POST {ADMIN}/{{version}}/load": "Verifies a version and loads it. It answers by name only.",
    f"POST {ADMIN}/{{version}}/activate": "Makes a version active, after loading it if necessary.",
    f"POST {ADMIN}/{{version}}/unload": "Removes a version from memory after its last answer.",
    f"POST {ADMIN}/{{version}}/canary": "Serves a share of the users with a version: always the "
    "same users. A share of 0 ends the canary.",
    f"POST {ADMIN}/{{version}}/shadow": "Scores copies of a share of the requests with a version, "
    "without answering them, and compares. A share of 0 ends the shadow.",
    f"POST {ADMIN}/promote": "Makes the canary active, or else the shadow.",
    f"POST {ADMIN}/rollback": "Makes the previous version active again.",
    "POST /v2/repository/index": "Returns all versions, or with `ready` those that answer.",
    f"POST {REPOSITORY}/load": "Loads and activates the newest version, or loads the named one.",
    f"POST {REPOSITORY}/unload": "Removes the named version from memory after its last answer.",
}


def describe(app: FastAPI) -> None:
    """Describe every documented operation. KeyError names one without a description."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            path = route.path_format.replace("/versions/{version}", "")
            route.description = DESCRIPTIONS[f"{''.join(route.methods or ())} {path}"]
