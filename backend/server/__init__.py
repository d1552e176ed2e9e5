"""HTTP only: the routes Label Studio calls, the admin API, authentication, metrics."""
