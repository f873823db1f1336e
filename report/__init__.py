"""What people look at: pictures of maps, tables of results, plots, and the page of a report."""
