"""What schemathesis cannot know of the server that it is let loose on, see schemathesis.rs.

The formats of the document that are words of this service, by values that are good here; and images that are there, so that
requests are not all about nothing.
"""

import os

import schemathesis
from hypothesis import strategies as st

schemathesis.openapi.format("uri", st.just(os.environ["GOOD_URI"]))
schemathesis.openapi.format("page-token", st.just(""))
schemathesis.openapi.format("order", st.sampled_from(["", "id", "name desc", "createdAt asc", "created_at DESC"]))
schemathesis.openapi.format(
    "filter",
    st.sampled_from(["", "name = web", 'name != "a b" AND status IN (READY, CREATING)', "family NOT IN ('x') AND id = y"]),
)
