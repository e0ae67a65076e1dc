"""The limiter: one Lua script a relay, its client and its settings (DESIGN section 7, LIMITER)."""

from .account import AccountState, Brake, CampaignUse, QuotaUse
from .admin import LimiterAdmin
from .appetite import Appetite
from .client import Limiter, seed_limits, seed_usage
from .connect import open_limiter, open_limiter_admin
from .limits import USAGE_LOOK_BACK, AccountLimits
from .permits import ANY, DomainPermits, Permits, Refusal, Slot, Why
from .report import Report

__all__ = [
    "ANY",
    "USAGE_LOOK_BACK",
    "AccountLimits",
    "AccountState",
    "Appetite",
    "Brake",
    "CampaignUse",
    "DomainPermits",
    "Limiter",
    "LimiterAdmin",
    "Permits",
    "QuotaUse",
    "Refusal",
    "Report",
    "Slot",
    "Why",
    "open_limiter",
    "open_limiter_admin",
    "seed_limits",
    "seed_usage",
]
