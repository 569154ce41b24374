"""Audit entries keep names and a chain of hashes; memberships say since when and from whom."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models
from django.db.models import OuterRef, Subquery


def name_actors(apps, schema_editor):
    entries, users = apps.get_model("research", "AuditEntry").objects, apps.get_model("auth", "User").objects
    projects = apps.get_model("research", "Project").objects
    entries.filter(actor=None).update(who="policy")
    entries.exclude(actor=None).update(who=Subquery(users.filter(pk=OuterRef("actor")).values("username")[:1]))
    entries.exclude(project=None).update(place=Subquery(projects.filter(pk=OuterRef("project")).values("name")[:1]))


class Migration(migrations.Migration):
    dependencies = [
        ("research", "0008_review_talk"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterModelOptions(name="auditentry", options={"verbose_name_plural": "audit entries"}),
        migrations.AddField("auditentry", "who", models.CharField(blank=True, default="", help_text="the actor's name then; policy, console or nobody", max_length=150), preserve_default=False),
        migrations.AddField("auditentry", "place", models.CharField(blank=True, default="", help_text="the project's name; empty for the lab itself", max_length=80), preserve_default=False),
        migrations.AddField("auditentry", "hash", models.CharField(blank=True, default="", max_length=64), preserve_default=False),
        migrations.AlterField(
            "auditentry",
            "project",
            models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name="audit", to="research.project"),
        ),
        migrations.RunPython(name_actors, migrations.RunPython.noop),
        migrations.AddField("membership", "given", models.DateTimeField(null=True, blank=True)),
        migrations.AlterField("membership", "given", models.DateTimeField(blank=True, default=django.utils.timezone.now, null=True)),
        migrations.AddField(
            "membership",
            "given_by",
            models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name="+", to=settings.AUTH_USER_MODEL),
        ),
        migrations.AlterField(
            model_name='event',
            name='kind',
            field=models.CharField(choices=[('trial_started', 'Trial Started'), ('trial_ended', 'Trial Ended'), ('idea', 'Idea'), ('refused', 'Refused'), ('experiment', 'Experiment'), ('verdict', 'Verdict'), ('head', 'Head'), ('request', 'Request'), ('merged', 'Merged'), ('rejected', 'Rejected'), ('returned', 'Returned'), ('stale', 'Stale'), ('rolled_back', 'Rolled Back'), ('promise', 'Promise'), ('ablation', 'Ablation'), ('more_seeds', 'More Seeds'), ('steered', 'Steered'), ('obeyed', 'Obeyed'), ('halted', 'Halted'), ('state', 'State'), ('noise', 'Noise'), ('finding', 'Finding'), ('comment', 'Comment'), ('lesson', 'Lesson'), ('machine', 'Machine'), ('member', 'Member'), ('note', 'Note')], max_length=16),
        ),
    ]
