"""What `promptmill doctor` looks at: each part of an installation, and what to do about it."""

from producer.doctor.audit import audit_database
from producer.doctor.check import Check
from producer.doctor.examination import examine

__all__ = ["Check", "audit_database", "examine"]
