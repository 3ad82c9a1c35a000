"""lateral: optimal operation of active distribution feeders."""
