"""Whether one end reaches another, walked over what the kernel has: pure, over a `Place` for each namespace that `seen` reads.

packet -> rules (of `nft` and of `saved`, read) -> wire (frames) -> walk (packets) -> verdict
"""
