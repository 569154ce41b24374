from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("research", "0003_campaign_bar")]

    operations = [
        migrations.AddField(
            model_name="noisefloor",
            name="level",
            field=models.FloatField(help_text="mean score of the A/A trials", null=True),
        ),
        migrations.AddField(
            model_name="noisefloor",
            name="freedom",
            field=models.PositiveIntegerField(help_text="degrees of freedom of sigma_pair", null=True),
        ),
        migrations.AddField(
            model_name="noisefloor",
            name="drift_error",
            field=models.FloatField(help_text="sd of the drift where nothing drifts", null=True),
        ),
        migrations.AddField(
            model_name="verdict",
            name="p_value",
            field=models.FloatField(blank=True, help_text="of a rule that reads once; it decides there", null=True),
        ),
    ]
