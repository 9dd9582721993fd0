"""What pods may ask a DNS server, and what the answers let them reach."""
