"""orchdb's tables as tortoise-orm sees them."""

from tortoise import fields
from tortoise.models import Model


class AgentLog(Model):
    """A line of a log."""

    id = fields.IntField(primary_key=True)
    agent_id = fields.CharField(max_length=36)
    log_level = fields.TextField()
    log_type = fields.TextField()
    message = fields.TextField()
    details = fields.JSONField[dict[str, object]](null=True)
    created_at = fields.CharField(max_length=26)

    class Meta:
        table = "agent_logs"


class Agent(Model):
    """An agent."""

    id = fields.CharField(max_length=36, primary_key=True)
    orchestrator_agent_id = fields.CharField(max_length=36)
    session_id = fields.TextField()
    parent_agent_id = fields.CharField(max_length=36, null=True)
    status = fields.TextField()
    context = fields.JSONField[dict[str, object]](null=True)
    config = fields.JSONField[dict[str, object]](null=True)
    started_at = fields.CharField(max_length=26, null=True)
    completed_at = fields.CharField(max_length=26, null=True)
    cost_usd = fields.FloatField(null=True)
    error_message = fields.TextField(null=True)
    created_at = fields.CharField(max_length=26)
    updated_at = fields.CharField(max_length=26)
    metadata = fields.JSONField[dict[str, object]](null=True)
    deleted_at = fields.CharField(max_length=26, null=True)

    class Meta:
        table = "agents"
