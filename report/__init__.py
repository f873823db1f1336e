"""Output for people: panels of maps, tables, plots, TensorBoard, and the HTML report."""
