"""The texts of the cluster's configuration files. Pure: nothing touches the disk.

Where the settings differ from those of a site, and why:

- No systemd, and cgroups for memory only, if they can be created: the cluster must run in a container
  (`proctrack/linuxproc`, `jobacct_gather/linux`). `up --proctrack cgroup` tracks processes as most sites do, where this
  user may create groups in a freezer hierarchy of cgroups version 1.
- Nodes claim more than the host has (`config_overrides`), and a GPU slice is a link to /dev/null: the cluster is
  there to try the scheduling of tasks, never their speed.
- The scheduler runs every second, so that users and tests do not wait for its timer.
- A requeued job waits `requeue_wait_s` before it may start again. In SLURM this is the lifetime of a job credential
  (`AuthInfo=cred_expire`), two minutes unless a site sets it.
"""

from __future__ import annotations

from hpc.one_machine.machine import OneMachine


def slurm_conf_text(machine: OneMachine, *, limits_memory: bool = False) -> str:
    """slurm.conf, read by all daemons, and by every command whose SLURM_CONF points to it."""
    task_plugin = "task/cgroup" if limits_memory else "task/none"
    # With this, 22.05 sends the job's --signal at the start of the grace time; without it, only SIGCONT and SIGTERM.
    # Newer versions call it PreemptParameters=send_user_signal, which 22.05 does not know.
    controller_parameters = "SlurmctldParameters=preempt_send_user_signal\n" if machine.preempt_user_signal else ""
    return f"""\
ClusterName={machine.name}
SlurmctldHost={machine.host}(127.0.0.1)
SlurmUser={machine.user}
SlurmdUser={machine.user}
SlurmctldPort={machine.ports.slurmctld}
FirstJobId={machine.first_job_id}

AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={machine.munge_socket},cred_expire={machine.requeue_wait_s}
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={machine.ports.slurmdbd}
AccountingStoragePass={machine.munge_socket}
AccountingStorageTRES=gres/gpu,gres/gpu:{machine.slice_type}
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5
JobCompType=jobcomp/none
MailProg=/bin/true

StateSaveLocation={machine.state}
SlurmdSpoolDir={machine.spool}/%n
SlurmctldPidFile={machine.folder}/slurmctld.pid
SlurmdPidFile={machine.folder}/slurmd-%n.pid
SlurmctldLogFile={machine.logs}/slurmctld.log
SlurmdLogFile={machine.logs}/slurmd-%n.log

ProctrackType=proctrack/{machine.proctrack}
TaskPlugin={task_plugin}
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=30
MessageTimeout=20
InactiveLimit=0
KillWait=30
MinJobAge=300
MaxArraySize=1001
MaxJobCount=10000
JobRequeue=1

SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{controller_parameters}
GresTypes=gpu
{_node_lines(machine)}
PartitionName=DEFAULT Nodes=ALL MaxTime=1-00:00:00 State=UP
PartitionName=gpu Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={machine.grace_time_s}
PartitionName=urgent PriorityTier=10 PreemptMode=OFF GraceTime=0
"""


def _node_lines(machine: OneMachine) -> str:
    lines = [
        f"NodeName={node} NodeHostname={machine.host} NodeAddr=127.0.0.1 Port={port}"
        f" Boards=1 SocketsPerBoard=1 CoresPerSocket={machine.cpus_per_node} ThreadsPerCore=1"
        f" RealMemory={machine.mem_per_node_mb}"
        f" Gres=gpu:{machine.slice_type}:{machine.slices_per_node} State=UNKNOWN\n"
        for node, port in zip(machine.nodes, machine.ports.slurmd, strict=True)
    ]
    return "".join(lines)


def cgroup_conf_text(machine: OneMachine, *, limits_memory: bool) -> str:
    """cgroup.conf. With `limits_memory`, the kernel kills a job that uses more memory than it requested."""
    limit = "ConstrainRAMSpace=yes\n" if limits_memory else ""
    return f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={machine.cgroup}\n{limit}"


def gres_conf_text(machine: OneMachine) -> str:
    """gres.conf. Each slice needs a file: with Count= instead, SLURM drains the node as INVAL."""
    lines = [
        f"NodeName={node} Name=gpu Type={machine.slice_type} File={path}\n"
        for node in machine.nodes
        for path in machine.slice_files
    ]
    return "".join(lines)


def slurmdbd_conf_text(machine: OneMachine) -> str:
    """slurmdbd.conf. slurmdbd refuses it unless its mode is 0600."""
    return f"""\
DbdHost={machine.host}
DbdAddr=127.0.0.1
DbdPort={machine.ports.slurmdbd}
SlurmUser={machine.user}
AuthType=auth/munge
AuthInfo=socket={machine.munge_socket}
PidFile={machine.folder}/slurmdbd.pid
LogFile={machine.logs}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={machine.ports.mariadb}
StorageLoc=slurm_acct_db
StorageUser=slurm
StoragePass={machine.db_password}
"""


def database_setup_text(machine: OneMachine) -> str:
    """SQL for `mariadbd --init-file`, one statement per line. It runs at every start, so it must be idempotent."""
    return (
        "CREATE DATABASE IF NOT EXISTS slurm_acct_db;\n"
        f"CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY '{machine.db_password}';\n"
        "GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';\n"
    )
