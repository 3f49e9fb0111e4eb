"""Internals of the loader: fetching, collating, worker processes and how batches travel."""
