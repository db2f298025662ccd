"""Builds the tasks that look for anomalies, and what sends messages of the outbox.

Tested with whole nodes in tests/e2e/test_anomalies.py.
"""

from functools import partial

from scoreboard.app.accounts import AccountParts
from scoreboard.app.workers import Worker
from scoreboard.app.writes import WriteParts
from scoreboard.domain.errors import SettingsError
from scoreboard.domain.outgoing_messages import Channel
from scoreboard.drivers.https_client import HttpsClient, check_url
from scoreboard.drivers.stores import Stores
from scoreboard.operations.send_messages import Form, MessageSender, Receiver
from scoreboard.settings.model import Settings
from scoreboard.storage.anomaly_log import AnomalyLog
from scoreboard.workers.anomalies import run_anomalies
from scoreboard.workers.message_sender import run_message_sender


def build_anomaly_workers(
    settings: Settings, stores: Stores, accounts: AccountParts, writes: WriteParts, https: HttpsClient
) -> list[Worker]:
    """The tasks of what is switched on. Raises SettingsError for a URL of alerts that can't be asked."""
    receivers = build_receivers(settings)
    limits, workers = settings.anomalies.limits, list[Worker]()
    if any(limits._replace(regular_percent=0)):
        anomaly_log = AnomalyLog(
            stores, limits, alerts=Channel.ALERTS in receivers, policies=settings.anomalies.policies
        )
        workers.append(Worker("anomalies", partial(run_anomalies, stores, anomaly_log)))
    if writes.held_users is not None:
        workers.append(Worker("held users", writes.held_users.watch))
    if accounts.networks is not None:
        workers.append(Worker("log-in networks", accounts.networks.run))
    if receivers:
        sender = MessageSender(stores, https, receivers, accounts.authenticator.clock.now)
        workers.append(Worker("messages", partial(run_message_sender, stores, sender)))
    return workers


def build_receivers(settings: Settings) -> dict[Channel, Receiver]:
    """The receivers that the settings name, by the channel of the outbox."""
    alerts = settings.alerts
    url = alerts.url.get_secret_value()
    if not url:
        return {}
    if wrong := check_url(url, settings.outgoing.private_hosts):
        raise SettingsError(f"alerts.url: {wrong}")
    return {Channel.ALERTS: Receiver(url, Form(alerts.form), alerts.secret.get_secret_value())}
