"""Rewards: how well pictures show what a prompt asks for, for losses that choose among noises."""
