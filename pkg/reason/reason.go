// Package reason names what can go wrong for a caller: one table of stable reasons, shared by the errors of the API, the
// details of CNI errors, the command line, the log and docs/reasons.md.
package reason

//go:generate go test -run=TestDocument -update .

// A Reason is a stable name: upper case and underscores, at most 63 bytes, as google.rpc.ErrorInfo wants it.
type Reason string

// Domain is the domain of the reasons in google.rpc.ErrorInfo.
const Domain = "offloadd"

// The reasons. Table says what each means.
const (
	InvalidField          Reason = "INVALID_FIELD"
	DeadlineRequired      Reason = "DEADLINE_REQUIRED"
	PageTokenInvalid      Reason = "PAGE_TOKEN_INVALID"
	PermissionDenied      Reason = "PERMISSION_DENIED"
	FeatureUnsupported    Reason = "FEATURE_UNSUPPORTED"
	VersionSkew           Reason = "VERSION_SKEW"
	PortNotFound          Reason = "PORT_NOT_FOUND"
	PortConflict          Reason = "PORT_CONFLICT"
	PortBusy              Reason = "PORT_BUSY"
	PortDeleted           Reason = "PORT_DELETED"
	NetnsGone             Reason = "NETNS_GONE"
	NetnsInvalid          Reason = "NETNS_INVALID"
	IfnameInUse           Reason = "IFNAME_IN_USE"
	MACInUse              Reason = "MAC_IN_USE"
	LPortInUse            Reason = "LPORT_IN_USE"
	LPortNotFound         Reason = "LPORT_NOT_FOUND"
	LPortClaimedElsewhere Reason = "LPORT_CLAIMED_ELSEWHERE"
	LPortNoAddresses      Reason = "LPORT_NO_ADDRESSES"
	OVNNotInstalled       Reason = "OVN_NOT_INSTALLED"
	LinkMissing           Reason = "LINK_MISSING"
	LinkChanged           Reason = "LINK_CHANGED"
	AddressMissing        Reason = "ADDRESS_MISSING"
	RouteMissing          Reason = "ROUTE_MISSING"
	PortUnplugged         Reason = "PORT_UNPLUGGED"
	KernelRefused         Reason = "KERNEL_REFUSED"
	HWOffloadOff          Reason = "HW_OFFLOAD_OFF"
	PoolNotFound          Reason = "POOL_NOT_FOUND"
	PoolExhausted         Reason = "POOL_EXHAUSTED"
	DeviceNotFound        Reason = "DEVICE_NOT_FOUND"
	DeviceBusy            Reason = "DEVICE_BUSY"
	DeviceGone            Reason = "DEVICE_GONE"
	DeviceFailed          Reason = "DEVICE_FAILED"
	DeviceStaleOwner      Reason = "DEVICE_STALE_OWNER"
	EswitchNotSwitchdev   Reason = "ESWITCH_NOT_SWITCHDEV"
	FunctionNotReady      Reason = "FUNCTION_NOT_READY"
	FunctionElsewhere     Reason = "FUNCTION_ELSEWHERE"
	FunctionNotRestored   Reason = "FUNCTION_NOT_RESTORED"
	FunctionQuarantined   Reason = "FUNCTION_QUARANTINED"
	FunctionsInUse        Reason = "FUNCTIONS_IN_USE"
	RepresentorInUse      Reason = "REPRESENTOR_IN_USE"
	AttributeNotKept      Reason = "ATTRIBUTE_NOT_KEPT"
	JournalFailed         Reason = "JOURNAL_FAILED"
	JournalCorrupt        Reason = "JOURNAL_CORRUPT"
	TooManyPorts          Reason = "TOO_MANY_PORTS"
	SBDisconnected        Reason = "SB_DISCONNECTED"
	OVSDBDisconnected     Reason = "OVSDB_DISCONNECTED"
	OVSDBRefused          Reason = "OVSDB_REFUSED"
	BridgeMissing         Reason = "BRIDGE_MISSING"
	BridgeDisconnected    Reason = "BRIDGE_DISCONNECTED"
	NotReady              Reason = "NOT_READY"
	DatapathNotFound      Reason = "DATAPATH_NOT_FOUND"
	ProbeBusy             Reason = "PROBE_BUSY"
	ProbeImpossible       Reason = "PROBE_IMPOSSIBLE"
	ProbeRefused          Reason = "PROBE_REFUSED"
	ProbeRunNotFound      Reason = "PROBE_RUN_NOT_FOUND"
	ProbeNoAnswer         Reason = "PROBE_NO_ANSWER"
	ProbeOffloadLost      Reason = "PROBE_OFFLOAD_LOST"
	ProbeSlower           Reason = "PROBE_SLOWER"
	DaemonUnreachable     Reason = "DAEMON_UNREACHABLE"
	ShuttingDown          Reason = "SHUTTING_DOWN"
	Cancelled             Reason = "CANCELLED"
	DeadlineExceeded      Reason = "DEADLINE_EXCEEDED"
	Internal              Reason = "INTERNAL"
)

// A Code is a google.rpc.Code, with the numbers of google/rpc/code.proto.
type Code uint8

// The codes that the table uses.
const (
	CodeCancelled          Code = 1
	CodeInvalidArgument    Code = 3
	CodeDeadlineExceeded   Code = 4
	CodeNotFound           Code = 5
	CodeAlreadyExists      Code = 6
	CodePermissionDenied   Code = 7
	CodeResourceExhausted  Code = 8
	CodeFailedPrecondition Code = 9
	CodeAborted            Code = 10
	CodeUnimplemented      Code = 12
	CodeInternal           Code = 13
	CodeUnavailable        Code = 14
	CodeDataLoss           Code = 15
)

// A CNI is an error code of the CNI specification 1.1, section 3. Those from 100 on are ours.
type CNI uint

// The error codes that the table uses.
const (
	CNIIncompatible CNI = 1
	CNIUnsupported  CNI = 2
	CNIUnknown      CNI = 3 // the runtime may believe that there is nothing to clean up
	CNIEnvironment  CNI = 4
	CNIIO           CNI = 5
	CNIConfig       CNI = 7
	CNITryLater     CNI = 11
	CNIUnavailable  CNI = 50 // no container can be added
	CNILimited      CNI = 51 // and those that exist may be affected
	CNIConflict     CNI = 100
	CNIExhausted    CNI = 101
	CNIPrecondition CNI = 102
	CNINotReady     CNI = 103
	CNINotPermitted CNI = 104
	CNIInternal     CNI = 999
)

// An Entry is what the table says of a reason.
type Entry struct {
	Reason Reason
	Code   Code
	// CNI is the code with which ADD, DEL and CHECK fail.
	CNI CNI
	// Status is the code with which STATUS fails while this is so; 0 if it does not concern STATUS.
	Status CNI
	// Retry says whether the same call may succeed later without anybody doing anything.
	Retry bool
	// Meaning and Remedy are a sentence each.
	Meaning, Remedy string
}

// Table has an entry for every reason, in the order of docs/reasons.md. It is not to be changed.
var Table = []Entry{
	{
		InvalidField, CodeInvalidArgument, CNIConfig, 0, false,
		"A field of the request is missing or has a value that it cannot have.",
		"The error names each field and what is wrong with it.",
	},
	{
		DeadlineRequired, CodeInvalidArgument, CNIInternal, 0, false,
		"A call that changes something came without a deadline.",
		"Set one: the daemon gives up, and undoes what it did, when the caller does.",
	},
	{
		PageTokenInvalid, CodeInvalidArgument, CNIInternal, 0, false,
		"The page token is not one that this daemon gave for this filter.",
		"Start again with the first page.",
	},
	{
		PermissionDenied, CodePermissionDenied, CNINotPermitted, 0, false,
		"The caller is not root, and the call changes something.",
		"Run the program as root, in the initial user namespace.",
	},
	{
		FeatureUnsupported, CodeUnimplemented, CNIUnsupported, 0, false,
		"The request asks for something that this daemon, kernel or Open vSwitch cannot do.",
		"The message names it; GetInfo lists what the daemon can do.",
	},
	{
		VersionSkew, CodeUnimplemented, CNIIncompatible, 0, false,
		"The daemon does not know the call: the caller is newer.",
		"Install the same release of the programs and of the daemon.",
	},

	{
		PortNotFound, CodeNotFound, CNIUnknown, 0, false,
		"There is no port with this key.",
		"Look at the list of ports; to delete one that does not exist succeeds.",
	},
	{
		PortConflict, CodeAlreadyExists, CNIConflict, 0, false,
		"There is a port with this key, but it was asked for with another specification.",
		"Delete it first; the metadata name the fields that differ.",
	},
	{
		PortBusy, CodeAborted, CNITryLater, 0, true,
		"Another call for this port is not over yet.",
		"Try again; the port's timeline shows what takes long.",
	},
	{
		PortDeleted, CodeAborted, CNITryLater, 0, false,
		"The port was deleted while it was being created.",
		"Nothing is left of it; create it again if it is still wanted.",
	},

	{
		NetnsGone, CodeFailedPrecondition, CNIEnvironment, 0, false,
		"There is nothing at the path of the network namespace.",
		"The container has ended, or the daemon does not see the path: /run/netns must be shared with it.",
	},
	{
		NetnsInvalid, CodeFailedPrecondition, CNIEnvironment, 0, false,
		"What is at the path is no network namespace, or it is the daemon's own.",
		"Correct CNI_NETNS; a container with the host's network has no port.",
	},
	{
		IfnameInUse, CodeAlreadyExists, CNIConflict, 0, false,
		"The network namespace has an interface of this name already.",
		"Choose another name, or find out who made it.",
	},
	{
		MACInUse, CodeAlreadyExists, CNIConflict, 0, false,
		"Another port of this network on this node has the same MAC address.",
		"Correct the addresses of one of the two.",
	},
	{
		LPortInUse, CodeAlreadyExists, CNIConflict, 0, true,
		"Another port on this node is plugged in for the same logical port.",
		"Delete that one; the metadata name it.",
	},
	{
		LPortNotFound, CodeNotFound, CNITryLater, 0, true,
		"The Southbound has no such logical port (yet).",
		"Create the Logical_Switch_Port, or wait: after its creation it takes ovn-northd a moment.",
	},
	{
		LPortClaimedElsewhere, CodeFailedPrecondition, CNITryLater, 0, true,
		"The logical port belongs to another chassis, by options:requested-chassis or because it is plugged in there.",
		"Correct requested-chassis, or unplug it there; the metadata name the chassis.",
	},
	{
		LPortNoAddresses, CodeFailedPrecondition, CNITryLater, 0, true,
		"The addresses were to come from the logical port, but it has none (yet).",
		"Give the Logical_Switch_Port addresses (\"dynamic\" or explicit), or the request.",
	},
	{
		OVNNotInstalled, CodeDeadlineExceeded, CNINotReady, 0, true,
		"The port was plugged in, but its flows were not installed before the deadline.",
		"The timeline shows which step it waited for: an unclaimed port points at the Southbound, an uninstalled one at the bridge.",
	},

	{
		LinkMissing, CodeFailedPrecondition, CNIPrecondition, 0, false,
		"An interface of the port no longer exists.",
		"Somebody removed it: delete the port and create it again.",
	},
	{
		LinkChanged, CodeFailedPrecondition, CNIPrecondition, 0, false,
		"An interface of the port is down, or its MAC address, its MTU or an attribute of its function is not what it was.",
		"Find out who changed it; the message has both values.",
	},
	{
		AddressMissing, CodeFailedPrecondition, CNIPrecondition, 0, false,
		"The interface in the container lacks an address.",
		"Find out who removed it.",
	},
	{
		RouteMissing, CodeFailedPrecondition, CNIPrecondition, 0, false,
		"The container lacks a route.",
		"Find out who removed it.",
	},
	{
		PortUnplugged, CodeFailedPrecondition, CNIPrecondition, 0, false,
		"The port is no longer in the integration bridge, or no longer there as this logical port.",
		"Find out who changed the Interface: delete the port and create it again.",
	},
	{
		KernelRefused, CodeFailedPrecondition, CNIPrecondition, 0, false,
		"The kernel refused a request.",
		"The message has the request and the kernel's answer.",
	},
	{
		HWOffloadOff, CodeFailedPrecondition, CNIPrecondition, 0, false,
		"Offload is delegated to Open vSwitch, which does not offload.",
		"ovs-vsctl set open . other_config:hw-offload=true, and restart ovs-vswitchd; or set offload: direct, or off, in the configuration.",
	},

	{
		PoolNotFound, CodeNotFound, CNIConfig, 0, false,
		"There is no such pool, or none of the kinds that are asked for.",
		"Name one that is configured under pools, or configure it.",
	},
	{
		PoolExhausted, CodeResourceExhausted, CNIExhausted, 0, true,
		"No function of the pool is free, and it may have no more.",
		"The message says what they are doing. Delete ports, make more VFs, or raise the pool's max.",
	},
	{
		DeviceNotFound, CodeNotFound, CNIPrecondition, 0, true,
		"There is no such device, or no such function.",
		"Compare the pool's device with devlink dev show, and the function with the pool's. What a driver makes late is found when it is there.",
	},
	{
		DeviceBusy, CodeAborted, CNITryLater, 0, true,
		"The function or device is in use, or something else is being done with it.",
		"The message says what, and whose it is.",
	},
	{
		DeviceGone, CodeFailedPrecondition, CNIPrecondition, 0, true,
		"A function that somebody has no longer exists: its NIC was reset or removed, or its eswitch changed its mode.",
		"Delete the port and create it again. A VF whose NIC comes back is found again.",
	},
	{
		DeviceFailed, CodeFailedPrecondition, CNIPrecondition, 0, true,
		"A NIC's driver or firmware refused a request, or did not answer.",
		"The message has the request and the driver's answer; look at devlink health show and the kernel's log.",
	},
	{
		DeviceStaleOwner, CodeFailedPrecondition, CNIPrecondition, 0, false,
		"A function is not, or no longer, the one's who gives it back.",
		"Nothing to do: it was released before, and belongs to another port now.",
	},
	{
		EswitchNotSwitchdev, CodeFailedPrecondition, CNIPrecondition, 0, true,
		"The embedded switch of the NIC is not in switchdev mode, so that functions have no representors.",
		"Change its mode: devlink dev eswitch set DEVICE mode switchdev. All connections of its functions are interrupted.",
	},
	{
		FunctionNotReady, CodeFailedPrecondition, CNINotReady, 0, true,
		"An SF was made, but its network device has not come.",
		"Look at the kernel's log: the driver of the auxiliary device is missing, or its firmware does not answer.",
	},
	{
		FunctionElsewhere, CodeFailedPrecondition, CNIPrecondition, 0, true,
		"The network device of a function is not in the host's network namespace, or there is none.",
		"Find out who has it: a container that has not ended, another CNI plugin, or a driver as vfio-pci. When it comes back it is verified and used again.",
	},
	{
		FunctionNotRestored, CodeFailedPrecondition, CNIPrecondition, 0, false,
		"What was set of a function could not be undone, so that nobody gets it.",
		"The message says what. Put it right, or remove the function, and let it be verified again.",
	},
	{
		FunctionQuarantined, CodeFailedPrecondition, CNIPrecondition, 0, false,
		"The function is kept from everybody, because it could not be verified after its last use.",
		"The message says why. Put it right, and let it be verified again.",
	},
	{
		FunctionsInUse, CodeFailedPrecondition, CNIPrecondition, 0, false,
		"The operation would take functions away from ports.",
		"Delete those ports first; the message names them.",
	},
	{
		RepresentorInUse, CodeFailedPrecondition, CNIPrecondition, 0, true,
		"The representor of a function that was given back is still in a bridge.",
		"Take it out: ovs-vsctl del-port, or ip link set REPRESENTOR nomaster. It is verified again then.",
	},
	{
		AttributeNotKept, CodeFailedPrecondition, CNIPrecondition, 0, false,
		"The kernel took an attribute of a function, but reads back another value.",
		"The message has both values; look for a newer driver or firmware.",
	},

	{
		JournalFailed, CodeResourceExhausted, CNIIO, CNIUnavailable, true,
		"The journal of ports cannot be written, so nothing is begun.",
		"Look at the file system of the state directory: space, rights, whether it is read-only.",
	},
	{
		JournalCorrupt, CodeDataLoss, CNIIO, CNIUnavailable, false,
		"The journal of ports cannot be read.",
		"The log names file and place. Ports are taken over from Open vSwitch and the kernel as far as they tell.",
	},
	{
		TooManyPorts, CodeResourceExhausted, CNIExhausted, CNIUnavailable, true,
		"The node has as many ports as it may have.",
		"Delete some.",
	},

	{
		SBDisconnected, CodeUnavailable, CNITryLater, CNILimited, true,
		"There is no connection to the Southbound database.",
		"Look at external_ids:ovn-remote of the table Open_vSwitch, at the network and at the database.",
	},
	{
		OVSDBDisconnected, CodeUnavailable, CNITryLater, CNILimited, true,
		"There is no connection to the local Open_vSwitch database.",
		"Start ovsdb-server, or correct ovs_database in the configuration.",
	},
	{
		OVSDBRefused, CodeInternal, CNIInternal, 0, true,
		"The local Open_vSwitch database refused a transaction.",
		"The message has its answer.",
	},
	{
		BridgeMissing, CodeUnavailable, CNITryLater, CNILimited, true,
		"There is no integration bridge.",
		"Configure external_ids:ovn-remote, -encap-type, -encap-ip and system-id, then the daemon makes it.",
	},
	{
		BridgeDisconnected, CodeUnavailable, CNITryLater, CNILimited, true,
		"There is no OpenFlow connection to the integration bridge.",
		"Start ovs-vswitchd, or correct ovs_run_dir in the configuration.",
	},
	{
		NotReady, CodeUnavailable, CNITryLater, CNIUnavailable, true,
		"The daemon has started, but does not know enough yet to answer.",
		"Wait; the status shows what it has not read.",
	},
	{
		DatapathNotFound, CodeNotFound, CNIInternal, 0, false,
		"No local datapath has this name or UUID.",
		"Only datapaths that this chassis takes part in can be shown.",
	},

	{
		ProbeBusy, CodeAborted, CNITryLater, 0, true,
		"Another probe measures on this machine.",
		"Wait until it has ended, or end it; two at a time would measure each other.",
	},
	{
		ProbeImpossible, CodeFailedPrecondition, CNIPrecondition, 0, false,
		"This machine cannot measure what was asked for.",
		"The message says what is missing: choose another baseline, load or CPU, or measure where there is one.",
	},
	{
		ProbeRefused, CodeFailedPrecondition, CNIPrecondition, 0, false,
		"Counters do not say that the packets of a probe took the way that they are said to have taken.",
		"The message has the accounts: look at what else forwards, drops or counts there, and measure again.",
	},
	{
		ProbeRunNotFound, CodeNotFound, CNIUnknown, 0, false,
		"No run of the probe with this name is kept.",
		"Look at the list of runs; the oldest are removed.",
	},
	{
		ProbeNoAnswer, CodeUnavailable, CNITryLater, 0, true,
		"Requests that a pair of ports sends all the time are not answered.",
		"See what becomes of the packets: a policy drops them, the other end's node does not have the pair in its configuration, or the path is broken.",
	},
	{
		ProbeOffloadLost, CodeFailedPrecondition, CNIPrecondition, 0, false,
		"The packets of a pair of ports that is measured all the time were forwarded by filters, or by hardware, and are not any more.",
		"Ask why the port's filters do not forward them any more.",
	},
	{
		ProbeSlower, CodeFailedPrecondition, CNIPrecondition, 0, false,
		"A pair of ports that is measured all the time has become slower than the configured ratio allows.",
		"Look at what has changed on the two nodes and between them; measure with probe run if it is the machine.",
	},

	{
		DaemonUnreachable, CodeUnavailable, CNITryLater, CNIUnavailable, true,
		"Nobody answers at the daemon's socket.",
		"Start the daemon, or correct the socket's path.",
	},
	{
		ShuttingDown, CodeUnavailable, CNITryLater, CNIUnavailable, true,
		"The daemon is being stopped or restarted.",
		"Try again in a moment, with the same request.",
	},
	{
		Cancelled, CodeCancelled, CNIInternal, 0, true,
		"The caller ended the call.",
		"Nothing is left of what it began.",
	},
	{
		DeadlineExceeded, CodeDeadlineExceeded, CNITryLater, 0, true,
		"The deadline passed.",
		"Try again with more time.",
	},
	{
		Internal, CodeInternal, CNIInternal, 0, false,
		"The daemon made a mistake.",
		"The log has the circumstances: please report it.",
	},
}

// Find returns what the table says of r; false if r is not ours.
func Find(r Reason) (Entry, bool) {
	for _, e := range Table {
		if e.Reason == r {
			return e, true
		}
	}
	return Entry{}, false
}
