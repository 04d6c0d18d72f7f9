"""What runs here, and how it is doing. Any key opens these; the figures are of the whole service, not of a tenant."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel

from api import VERSION
from api.dependencies import PartsDep, SessionDep
from api.problems import responses
from api.telemetry import QueueMetrics
from services import census

router = APIRouter(tags=["service"])
