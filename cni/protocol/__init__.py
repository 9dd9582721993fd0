"""The CNI specification: versions, calls, configurations, results. Knows no kernel."""
