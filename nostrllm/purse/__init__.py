"""Coins and what is done with them, for provider and client alike."""

from nostrllm.purse.operation import Outcome, Plan, Then
from nostrllm.purse.purse import Purse
from nostrllm.purse.till import Pace

__all__ = ["Outcome", "Pace", "Plan", "Purse", "Then"]
