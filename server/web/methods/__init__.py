"""Methods of HTTP that look at images: one file a method, each between a body and the judge that all faces have."""
