"""The one door to the models. Every transition is a method on one of them."""

from research.models.ablation import Ablation, AblationPart
from research.models.artifact import Artifact
from research.models.audit import AuditEntry
from research.models.call import Call, Ceiling, Committed, HoldLost, OverCap
from research.models.candidate import Branch, Candidate, Diff
from research.models.comment import Comment, Viewed
from research.models.data_use import DataUse
from research.models.event import Event, Feed
from research.models.experiment import Experiment
from research.models.idea import Idea
from research.models.lesson import Lesson, LessonQuerySet
from research.models.machine import Lease, Machine, NoiseFloor
from research.models.merge_request import MergeRequest
from research.models.people import Membership, Preferences, Role, SignInLink
from research.models.project import Project
from research.models.prompt import ProjectPrompt
from research.models.refusals import NotAllowed, NotMergeable
from research.models.series import Chunk, Series
from research.models.session import Message, Session
from research.models.technique_request import FoundTechnique
from research.models.thread import SteeringLabel, Thread
from research.models.token import ApiToken, Claim, Submission
from research.models.trial import Result, Trial
from research.models.verdict import Finding, Verdict

__all__ = [
    "Ablation",
    "AblationPart",
    "ApiToken",
    "Artifact",
    "AuditEntry",
    "Branch",
    "Call",
    "Candidate",
    "Ceiling",
    "Chunk",
    "Claim",
    "Comment",
    "Committed",
    "DataUse",
    "Diff",
    "Event",
    "Experiment",
    "Feed",
    "Finding",
    "FoundTechnique",
    "HoldLost",
    "Idea",
    "Lease",
    "Lesson",
    "LessonQuerySet",
    "Machine",
    "Membership",
    "MergeRequest",
    "Message",
    "NoiseFloor",
    "NotAllowed",
    "NotMergeable",
    "OverCap",
    "Preferences",
    "Project",
    "ProjectPrompt",
    "Result",
    "Role",
    "Series",
    "Session",
    "SignInLink",
    "SteeringLabel",
    "Submission",
    "Thread",
    "Trial",
    "Verdict",
    "Viewed",
]
