"""The loop under load and while something is broken: a real Label Studio, a real backend, and annotators."""
