"""Who answers for the names of this node's pods: servers of DNS, probes that say who is answered, and Consul."""
