"""Everything that knows Label Studio: label configs, annotations, predictions, its HTTP API, set-up."""
