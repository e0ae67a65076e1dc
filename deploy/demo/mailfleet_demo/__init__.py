"""`make demo`: one campaign from an empty cluster to books that are held against the oracle."""
