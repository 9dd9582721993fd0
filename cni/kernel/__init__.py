"""The doors: each outside thing (rtnetlink, rules, namespaces, files, programs) is reached in one place."""
