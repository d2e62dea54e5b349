"""Input columns on the producer's side: values become cells of a stored row, and Arrow arrays."""
