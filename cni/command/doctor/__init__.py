"""What `agent-cni doctor` looks at, a module for each subject, and what others ask of the same."""
