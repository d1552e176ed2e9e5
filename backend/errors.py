"""Every failure has its own class under one root; each message names the field, the value and the remedy."""

from __future__ import annotations


class MmalError(Exception):
    """Root of all failures of this project."""


class ConfigurationError(MmalError):
    """A setting, option or argument is wrong; nothing was changed."""


class CredentialsMissing(ConfigurationError):
    """Others could reach the web process, and no credentials are set."""


class RequestInvalid(ConfigurationError):
    """A request lacks a field, or has one of another kind than it must be."""


class RequestTooLarge(ConfigurationError):
    """A request asks for more at once than is answered."""


class LabelStudioError(MmalError):
    """Something between this backend and Label Studio went wrong."""


class LabelStudioUnreachable(LabelStudioError):
    """No answer from Label Studio: refused connection, time-out, or a gateway that stays down."""


class TokenRefused(LabelStudioError):
    """Label Studio answered 401: the API key is wrong, revoked, or of a kind that is switched off."""


class LabelStudioRefused(LabelStudioError):
    """Label Studio answered with an error status; `status` and `detail` hold what it said."""

    def __init__(self, message: str, *, status: int, detail: str) -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail


class ProjectNotFound(LabelStudioError):
    """No project with this id exists, or the API key's user may not see it."""


class UnknownTasks(LabelStudioError):
    """Predictions were sent for tasks that Label Studio no longer has; nothing of the batch was stored."""

    def __init__(self, message: str, task_ids: frozenset[int]) -> None:
        super().__init__(message)
        self.task_ids = task_ids


class PublishRefused(LabelStudioError):
    """Label Studio stored fewer predictions than were sent, or none."""


class PredictionsInvalid(MmalError):
    """Prediction rows do not fit the label config; found before anything was sent."""


class ForeignPredictions(MmalError):
    """The project holds predictions of another system and `take_over` was not asked for."""


class LabelConfigUnsupported(MmalError):
    """The label config has too few, too many or unreadable tags; the message is one line and says what to change."""


class TaskTemplateInvalid(ConfigurationError):
    """A folder below `tasks_templates` lacks a file or a field, or does not fit the request."""


class LocalLabelStudioError(LabelStudioError):
    """A Label Studio started as a child process did not start, stop or stay up."""


class EncoderError(MmalError):
    """The encoder of images and texts cannot be used."""


class EncoderSpecInvalid(EncoderError, ConfigurationError):
    """MMAL_ENCODER is not written in a form that names an encoder."""


class EncoderUnavailable(EncoderError):
    """The encoder is well named, but its package, weights or device cannot be had here."""


class EncoderCheckpointInvalid(EncoderError):
    """The local checkpoint cannot be read or does not fit the named model."""


class EncoderFailed(EncoderError):
    """The encoder ran and gave no usable vector."""


class StoreError(MmalError):
    """The store cannot be used now; what was to be written was not."""


class StoreDamaged(StoreError):
    """The database is damaged, empty or gone; it is left as it is until a backup is restored."""


class StoreTooNew(StoreError):
    """A later version of this program has changed the tables."""


class StoreFull(StoreError):
    """No space is left where the store lies; the work goes on once there is."""


class BackupInvalid(MmalError):
    """An archive cannot be written, or is no complete and unchanged backup."""


class BackupTooNew(BackupInvalid):
    """An archive was made by a later version of this program."""


class StoreNotEmpty(ConfigurationError):
    """There is a store where a backup would be restored; nothing was changed."""


class StoreInUse(ConfigurationError):
    """A worker is running on the store that would be replaced; nothing was changed."""


class StoreUnreachable(StoreError):
    """The database does not answer or refuses us; the work goes on once it does not."""


class StoreAddressInvalid(ConfigurationError):
    """MMAL_DATABASE_URL is no address of a store, or its driver is missing."""


class QueueAddressInvalid(ConfigurationError):
    """MMAL_QUEUE_URL is no address of a job queue, or its driver is missing."""


class QueueUnreachable(MmalError):
    """The job queue does not answer or refuses us."""


class QueueDamaged(MmalError):
    """The file of the job queue could not be used; nothing in it is needed."""


class ProjectUnknown(MmalError):
    """The project was never connected to this backend."""


class ProjectOfAnother(MmalError):
    """The project of this number is not the one that was attached: it is in another Label Studio."""


class JobMessageInvalid(MmalError):
    """What lies in the job queue is no job of ours."""


class LeaseLost(MmalError):
    """Another worker took this job over; this one must stop without touching anything more."""


class TaskUnknown(MmalError):
    """The task is in no project of this backend."""


# learners and strategies


class LabelsInvalid(MmalError):
    """The labels do not fit the number of classes or of rows."""


class FeaturesMismatch(MmalError):
    """The feature matrices do not fit each other, or the head that was trained."""


class HeadStateInvalid(MmalError):
    """A saved head is incomplete or of another kind."""


class UnknownStrategy(ConfigurationError):
    """No strategy has this name."""


class UnknownOption(ConfigurationError):
    """The strategy has no option of this name."""


class InvalidOption(ConfigurationError):
    """An option of a strategy has a value that it cannot take."""


class StrategyUnsuited(ConfigurationError):
    """The strategy is not defined for this kind of project."""


class PoolTooLarge(StrategyUnsuited):
    """The project has more records than the strategy can rank in reasonable time and memory."""


class PoolInvalid(MmalError):
    """The arrays of a pool do not fit each other, or lack what the strategy needs."""


class OptionsInvalid(ConfigurationError):
    """An option of a project has an unknown name or a value it cannot take."""


class LabelModelUnsuited(ConfigurationError):
    """A label model weighs answers of another kind than the project asks for, or its package is not installed."""


class MediaError(MmalError):
    """A task's picture cannot be had; the task's other fields are unaffected. ``transient``: worth trying again."""

    transient = False


class MediaRootInvalid(MediaError, ConfigurationError):
    """The folder from which local files may be read is missing or is the whole disk."""


class MediaAllowInvalid(MediaError, ConfigurationError):
    """MMAL_MEDIA_ALLOW holds something that names no host and no network."""


class MediaAddressRefused(MediaError):
    """The host has no public address, and the setting that allows others does not name it."""


class MediaUriUnsupported(MediaError):
    """The task's value is no address that pictures are fetched from."""


class MediaNeedsTask(MediaError):
    """A cloud storage address can only be resolved for a task."""


class MediaPathRefused(MediaError):
    """The path leads out of the folder from which local files may be read."""


class MediaNotFound(MediaError):
    """There is nothing at the address."""


class MediaForbidden(MediaError):
    """The server wants other credentials."""


class MediaServerFault(MediaError):
    """The server answered with an error of its own."""

    transient = True


class MediaRefused(MediaError):
    """The server answered with a status that is neither success nor any of the above."""


class MediaUnreachable(MediaError):
    """No connection to the server, or it broke."""

    transient = True


class MediaTimeout(MediaError):
    """The server was too slow."""

    transient = True


class MediaRedirectRefused(MediaError):
    """Too many redirects, or one to something other than http and https."""


class MediaTooLarge(MediaError):
    """More bytes than allowed."""


class MediaTooManyPixels(MediaError):
    """More pixels than allowed; the picture was not decoded."""


class MediaDataUriInvalid(MediaError):
    """A data: address that cannot be decoded."""


class MediaNotAnImage(MediaError):
    """The bytes are no picture in a known format."""


class MediaDamaged(MediaError):
    """The picture is truncated or broken."""


class SimulationError(MmalError):
    """A replay of labelled data cannot be run as asked."""


class DataSourceUnavailable(SimulationError):
    """A package with data cannot be downloaded or unpacked here."""


class UnknownDataset(SimulationError, ConfigurationError):
    """No data set of this name can be built."""


class DatasetInvalid(SimulationError):
    """A data set's folder is incomplete or its files contradict one another."""


class ReplayInvalid(SimulationError, ConfigurationError):
    """Budget, batch, split or share of a replay make no sense together."""


class ExportInvalid(SimulationError):
    """A Label Studio export cannot be read as labelled image-text tasks."""


class PlotUnavailable(SimulationError):
    """The package that draws curves is not installed."""


class PairsInvalid(MmalError):
    """Pairs name rows that do not exist, contradict each other, or have another shape than they must."""


class WarmStartUnsuited(ConfigurationError):
    """Stored projection weights belong to another encoder than the one in use."""


class UnknownRetrievalModel(ConfigurationError):
    """No retrieval model has this name."""


class InvalidRetrievalOption(ConfigurationError):
    """An option of a retrieval model or of its scores has an unknown name or a value it cannot take."""


class RetrievalTrainingFailed(MmalError):
    """The loss of a retrieval network left the finite numbers; nothing was kept."""


class GaussiansInvalid(MmalError):
    """Means and variances of probabilistic embeddings do not fit each other."""


class AllocationInvalid(MmalError):
    """A batch cannot be allocated from what was given: sizes or budget contradict one another."""


class PairTaskInvalid(MmalError):
    """A task that asks for a pair lacks a field, or a field has a value it cannot have."""


class CandidatesUnreadable(MmalError):
    """So few of the images that questions would offer can be had that none of them is asked now."""


class StreamStateInvalid(MmalError):
    """What was stored of a stream of items cannot be read back."""


class CatalogueInvalid(MmalError):
    """Items for a catalogue cannot be read, or their ids cannot be used."""


class CatalogueItemInUse(CatalogueInvalid):
    """An item that annotators saw or answered about would become another; nothing was changed."""


class ProjectUnsuited(ConfigurationError):
    """What was asked for makes no sense in a project of this kind."""
