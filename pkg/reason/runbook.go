package reason

// A Runbook is what an operator does about a reason, besides reading its meaning and its remedy. In commands words in capitals are to be
// replaced: PORT is a logical port or NETWORK/CONTAINER/IFNAME, FUNCTION a devlink port, DEVICE a devlink handle.
type Runbook struct {
	// Seen is where the operator meets it, in a sentence or two.
	Seen string
	// Look are commands that show what is wrong. They change nothing.
	Look []string
	// Mend are commands that put it right where the remedy is a matter of commands, in their order or as alternatives; nil otherwise.
	Mend []string
}

// Runbook returns that of a reason of the table.
func (e Entry) Runbook() Runbook { return runbooks[e.Reason] }

// Commands of several runbooks.
const (
	lookLog      = "journalctl -t offloadd --since -15min"
	lookStatus   = "offloadctl status -o wide"
	lookPort     = "offloadctl describe port PORT"
	lookCheck    = "offloadctl describe port PORT --check"
	lookEvents   = "kubectl describe pod POD"
	lookAudit    = "offloadctl audit"
	lookFunction = "offloadctl functions -o wide"
	lookDevice   = "offloadctl describe device DEVICE"
	lookHealth   = "devlink health show"
	lookKernel   = "dmesg --ctime --level=err,warn"
	lookOVS      = "ovs-vsctl show"
	lookLinks    = "ip -d link show"
	mendPod      = "kubectl delete pod POD"
	mendRelease  = "offloadctl device release FUNCTION"
	mendOVS      = "systemctl restart openvswitch-switch"
)

// runbooks has one for each reason.
var runbooks = map[Reason]Runbook{
	InvalidField: {
		"A call, or the ADD of a pod, fails at once, the same way each time; the message lists field: cause.",
		[]string{lookEvents, "cat /etc/cni/net.d/*.conflist", "offloadctl explain INVALID_FIELD"},
		nil,
	},
	DeadlineRequired: {
		"A program of your own that calls the API fails at once. offloadctl and offload-cni always set a deadline.",
		[]string{"grpcurl -plaintext unix:///run/offloadd/offloadd.sock list"},
		nil,
	},
	PageTokenInvalid: {
		"A program of your own fails at the second page of a list: it changed the filter between pages, or kept the token over a restart.",
		[]string{"offloadctl get ports -o json"},
		nil,
	},
	PermissionDenied: {
		"offloadctl exits with 5, or the runtime cannot add pods: the caller's user, or its user namespace, is not root's.",
		[]string{"id", "cat /proc/self/uid_map", "ls -l /run/offloadd"},
		nil,
	},
	FeatureUnsupported: {
		"An ADD fails at once, or describe port says why it fell back to another kind; the message names what is not supported.",
		[]string{"offloadctl node info", "offloadctl doctor", lookDevice, "offloadctl pools"},
		nil,
	},
	VersionSkew: {
		"A new offloadctl, or a new offload-cni in /opt/cni/bin, calls an old daemon, mostly in the middle of an upgrade.",
		[]string{"offloadctl version", "ls -l /opt/cni/bin/offload-cni"},
		[]string{"systemctl restart offloadd"},
	},

	PortNotFound: {
		"CHECK of a pod fails, or offloadctl exits with 3: the port was deleted, or belongs to another node.",
		[]string{"offloadctl get ports", "ovn-sbctl --columns=chassis find port_binding logical_port=LPORT"},
		[]string{mendPod},
	},
	PortConflict: {
		"ADD of a container that has a port already fails: the pod or the network's configuration was changed in between.",
		[]string{lookPort, "cat /etc/cni/net.d/*.conflist", lookEvents},
		[]string{mendPod},
	},
	PortBusy: {
		"ADD, DEL or CHECK fails and is tried again by the runtime: an earlier call for the same port has not ended.",
		[]string{lookPort, "offloadctl get ports --state creating,deleting", lookLog},
		nil,
	},
	PortDeleted: {
		"An ADD fails while the runtime tears the same pod down. If nobody wants the pod any more nothing is wrong.",
		[]string{lookEvents, lookLog},
		[]string{mendPod},
	},
	NetnsGone: {
		"An ADD fails, or after a restart the log says that a port was removed since its network namespace is gone.",
		[]string{"ip netns list", "ls -l /run/netns", "findmnt -o TARGET,PROPAGATION /run/netns", "crictl pods"},
		[]string{mendPod},
	},
	NetnsInvalid: {
		"An ADD fails at once, mostly for a pod with hostNetwork: true whose network is asked for all the same.",
		[]string{lookEvents, "ls -l /run/netns"},
		nil,
	},
	IfnameInUse: {
		"An ADD fails: another plugin, or an earlier network of the pod, has made an interface of this name.",
		[]string{"ip -n NETNS -d link show", lookEvents, "cat /etc/cni/net.d/*.conflist"},
		[]string{mendPod},
	},
	MACInUse: {
		"An ADD fails; the metadata name the port on this node that has the address.",
		[]string{"offloadctl get ports -o wide", "ovn-nbctl --columns=name,addresses,dynamic_addresses list logical_switch_port"},
		[]string{"ovn-nbctl lsp-set-addresses LPORT dynamic"},
	},
	LPortInUse: {
		"An ADD fails and is tried again: the pod's earlier port has not been deleted yet, or two pods ask for the same logical port.",
		[]string{"offloadctl get ports --port LPORT", "ovs-vsctl --columns=name,external_ids find interface external_ids:iface-id=LPORT", lookAudit},
		[]string{mendPod},
	},
	LPortNotFound: {
		"An ADD waits and then fails; the timeline stops at claim. The CMS has not made the logical port, or northd is not done.",
		[]string{"ovn-nbctl lsp-get-addresses LPORT", "ovn-sbctl find port_binding logical_port=LPORT", "ovn-appctl -t ovn-northd status", lookStatus},
		[]string{"ovn-nbctl lsp-add SWITCH LPORT"},
	},
	LPortClaimedElsewhere: {
		"An ADD waits and then fails; the log says lport not claimed. After a live migration both nodes have had the port.",
		[]string{"ovn-sbctl --columns=chassis,requested_chassis,up find port_binding logical_port=LPORT", "ovn-nbctl lsp-get-options LPORT", "ovn-sbctl show"},
		[]string{"ovn-nbctl remove logical_switch_port LPORT options requested-chassis"},
	},
	LPortNoAddresses: {
		"An ADD without addresses of its own waits and then fails; the timeline stops at addresses.",
		[]string{"ovn-nbctl --columns=addresses,dynamic_addresses list logical_switch_port LPORT", "ovn-nbctl --columns=other_config list logical_switch SWITCH", lookPort},
		[]string{"ovn-nbctl lsp-set-addresses LPORT dynamic"},
	},
	OVNNotInstalled: {
		"An ADD takes as long as it may and fails, and the pod stays in ContainerCreating; the timeline's last step says for what it waited.",
		[]string{lookPort, lookStatus, "offloadctl flows --port LPORT", "offloadctl get flows --state pending,refused", "ovn-sbctl --columns=chassis,up find port_binding logical_port=LPORT"},
		[]string{"offloadctl recompute"},
	},

	LinkMissing: {
		"A port is FAILED, and CHECK fails: its interface, or the network namespace with it, was deleted from outside.",
		[]string{lookCheck, "ip -n NETNS -d link show", lookLinks, lookAudit},
		[]string{mendPod},
	},
	LinkChanged: {
		"CHECK fails; describe port --check has what is and what should be.",
		[]string{lookCheck, "ip -n NETNS -d link show", lookLog},
		[]string{"ip -n NETNS link set IFNAME up address MAC mtu MTU"},
	},
	AddressMissing: {
		"CHECK fails: somebody flushed the addresses, or the interface was down, which takes IPv6 addresses with it.",
		[]string{lookCheck, "ip -n NETNS addr show"},
		[]string{"ip -n NETNS addr add ADDRESS dev IFNAME", mendPod},
	},
	RouteMissing: {
		"CHECK fails: a program in the container changed its routes, or the interface was down for a moment.",
		[]string{lookCheck, "ip -n NETNS route show table all"},
		[]string{"ip -n NETNS route add DESTINATION via GATEWAY", mendPod},
	},
	PortUnplugged: {
		"A port is FAILED or CHECK fails: its Interface is no longer in the bridge, or iface-id was changed.",
		[]string{lookCheck, "ovs-vsctl --columns=name,ofport,external_ids find interface external_ids:offloadd-port!=x", lookAudit},
		[]string{mendPod},
	},
	KernelRefused: {
		"A call fails with the request as ip(8) or tc(8) takes it and the kernel's words; or offload.filter in status has it, with the first filter that was refused.",
		[]string{lookStatus, "offloadctl diff", "offloadctl doctor", lookKernel, "tc -s filter show block 3869"},
		nil,
	},
	HWOffloadOff: {
		"The subsystem offload.filter in status is not serving, and no megaflow is in TC or in hardware.",
		[]string{lookStatus, "offloadctl doctor --offload delegated", "ovs-vsctl get open . other_config"},
		[]string{"ovs-vsctl set open . other_config:hw-offload=true", mendOVS},
	},

	PoolNotFound: {
		"An ADD fails at once: the network's configuration, or the device that kubelet gave, names a pool that this node does not have.",
		[]string{"offloadctl pools", "cat /etc/cni/net.d/*.conflist", "ps -o args= -C offloadd"},
		nil,
	},
	PoolExhausted: {
		"An ADD fails and is tried again; or describe port says that a port fell back to another kind because of it.",
		[]string{"offloadctl pools -o wide", lookFunction, "offloadctl functions --state quarantined", lookAudit},
		[]string{"offloadctl device vfs DEVICE NUMBER --dry-run", mendRelease},
	},
	DeviceNotFound: {
		"A pool has it as its reason, or an ADD fails: the handle or netdev in the configuration is not this node's, or the driver is not loaded.",
		[]string{"offloadctl devices", "devlink dev show", "devlink port show", "lspci -k", "offloadctl pools -o wide"},
		[]string{"modprobe mlx5_core", "systemctl restart offloadd"},
	},
	DeviceBusy: {
		"A call fails and is tried again: another has the function, or the column DOING of devices says what keeps the NIC busy.",
		[]string{"offloadctl devices -o wide", lookFunction, "offloadctl watch devices"},
		nil,
	},
	DeviceGone: {
		"Ports of one NIC become FAILED together: it was reset or removed, changed its mode, or somebody deleted the VFs or the SF.",
		[]string{"offloadctl get ports --state failed", "offloadctl functions --state gone", "devlink dev eswitch show DEVICE", lookHealth, lookKernel},
		[]string{mendPod},
	},
	DeviceFailed: {
		"A pool has it as its reason, functions are quarantined with it, or a call fails with the request as devlink(8) takes it and the driver's words.",
		[]string{lookDevice, "offloadctl pools -o wide", lookHealth, "devlink health diagnose DEVICE reporter fw", lookKernel},
		[]string{"devlink health recover DEVICE reporter fw", "devlink dev reload DEVICE"},
	},
	DeviceStaleOwner: {
		"In the log only, after a DEL that came late or twice.",
		[]string{"offloadctl functions --owner NETWORK/CONTAINER/IFNAME", lookAudit},
		nil,
	},
	EswitchNotSwitchdev: {
		"Pools of the NIC have it as their reason, and no pod gets a function, mostly after a boot that nobody made switch the mode.",
		[]string{"offloadctl devices", "offloadctl pools -o wide", "devlink dev eswitch show DEVICE"},
		[]string{"offloadctl device eswitch DEVICE switchdev --dry-run", "offloadctl device eswitch DEVICE switchdev"},
	},
	FunctionNotReady: {
		"SFs are quarantined with it, and their pool does not fill: they have a port, but no netdev.",
		[]string{"offloadctl functions --kind sf --state quarantined -o wide", "devlink port show", "ls -l /sys/bus/auxiliary/devices", "devlink dev param show", lookKernel},
		[]string{"modprobe mlx5_core", mendRelease, "offloadctl device sf delete FUNCTION"},
	},
	FunctionElsewhere: {
		"A function is quarantined with it after a pod has ended, and audit lists it.",
		[]string{"offloadctl functions --state quarantined -o wide", "ip netns list", "lsns -t net", "lspci -k", lookAudit},
		[]string{"ip -n NETNS link set NETDEV netns 1", mendRelease},
	},
	FunctionNotRestored: {
		"A function is quarantined with it, and audit lists it; the message has the attribute, what it is, and what it should be.",
		[]string{"offloadctl functions --state quarantined -o wide", "ip -d link show NETDEV", "devlink port show FUNCTION", lookKernel},
		[]string{mendRelease, "offloadctl device sf delete FUNCTION"},
	},
	FunctionQuarantined: {
		"A call that names the function, or the device that kubelet gave, fails; kubelet is told that the device is unhealthy.",
		[]string{"offloadctl functions --state quarantined -o wide", lookAudit, "offloadctl gc --dry-run"},
		[]string{mendRelease},
	},
	FunctionsInUse: {
		"offloadctl device exits with 5 before anything is done, and names the ports.",
		[]string{"offloadctl device vfs DEVICE NUMBER --dry-run", "offloadctl functions --device DEVICE --state used"},
		[]string{"kubectl drain NODE --ignore-daemonsets"},
	},
	RepresentorInUse: {
		"A function is quarantined with it: somebody plugged its representor in by hand, or another agent did.",
		[]string{"offloadctl functions --state quarantined -o wide", "ip -d link show REPRESENTOR", "ovs-vsctl iface-to-br REPRESENTOR"},
		[]string{"ovs-vsctl del-port REPRESENTOR", "ip link set REPRESENTOR nomaster"},
	},
	AttributeNotKept: {
		"An ADD with a VLAN, trust, spoof check, link state, rate, MAC address or MTU fails, and the function goes back to its pool.",
		[]string{lookDevice, "devlink dev info DEVICE", "ip -d link show UPLINK", "devlink port function rate show", lookKernel},
		nil,
	},

	JournalFailed: {
		"Every ADD and DEL fails, and CNI STATUS too, so that the node becomes NotReady; pods that run are not concerned.",
		[]string{"df -h /var/lib/offloadd", "df -i /var/lib/offloadd", "findmnt -T /var/lib/offloadd", "ls -l /var/lib/offloadd", lookLog},
		nil,
	},
	JournalCorrupt: {
		"After a start the log names file and place; the disk or a crash of the machine is the cause, not a crash of the daemon.",
		[]string{lookLog, "ls -l /var/lib/offloadd", lookAudit, lookKernel},
		[]string{"offloadctl gc --dry-run"},
	},
	TooManyPorts: {
		"Every ADD fails, and CNI STATUS too, while ports that nobody needs may be left.",
		[]string{"offloadctl get ports", lookAudit, "crictl pods"},
		[]string{mendPod},
	},

	SBDisconnected: {
		"status says that the Southbound is not connected, ADDs fail and are tried again; what is installed goes on.",
		[]string{lookStatus, "ovs-vsctl get open . external_ids", "ovn-sbctl --db=REMOTE show", "ss -tnp", lookLog},
		[]string{"ovs-vsctl set open . external_ids:ovn-remote=REMOTE"},
	},
	OVSDBDisconnected: {
		"status says that Open_vSwitch is not connected, ADDs and DELs fail and are tried again; what is installed goes on.",
		[]string{lookStatus, "ls -l /run/openvswitch/db.sock", "ovs-appctl -t ovsdb-server version", "systemctl status ovsdb-server"},
		[]string{"systemctl start ovsdb-server"},
	},
	OVSDBRefused: {
		"A call fails with the database's answer; the log has it as transaction not done.",
		[]string{lookLog, "ovs-appctl -t ovsdb-server ovsdb-server/list-dbs", "df -h /etc/openvswitch"},
		[]string{"systemctl restart ovsdb-server"},
	},
	BridgeMissing: {
		"status says that there is no integration bridge: the node is not configured as a chassis, or somebody deleted br-int.",
		[]string{lookStatus, lookOVS, "ovs-vsctl get open . external_ids"},
		[]string{"ovs-vsctl set open . external_ids:ovn-remote=REMOTE external_ids:ovn-encap-type=geneve external_ids:ovn-encap-ip=ADDRESS external_ids:system-id=NAME"},
	},
	BridgeDisconnected: {
		"status says that the bridge is not connected: ovs-vswitchd does not run, or its management socket is elsewhere.",
		[]string{lookStatus, "ls -l /run/openvswitch/br-int.mgmt", "systemctl status ovs-vswitchd", "ovs-appctl version"},
		[]string{"systemctl start ovs-vswitchd"},
	},
	NotReady: {
		"Calls fail and CNI STATUS too, for seconds after a start; if it stays so, status names the database or the NIC that has not been read.",
		[]string{lookStatus, lookLog, "offloadctl devices"},
		nil,
	},
	DatapathNotFound: {
		"offloadctl trace or flows exits with 3: no port of this node is on the switch or router, directly or through routers.",
		[]string{"ovn-nbctl show", "ovn-sbctl --columns=external_ids list datapath_binding", "offloadctl get zones"},
		nil,
	},

	ProbeBusy: {
		"offloadctl probe run or clean fails at once: somebody else measures, through the daemon or with --local.",
		[]string{"cat /run/opr/lock", "offloadctl probe runs"},
		nil,
	},
	ProbeImpossible: {
		"offloadctl probe run fails after some seconds: the path that others are to be compared with cannot be built, or polling needs more CPUs.",
		[]string{"offloadctl probe kinds", lookKernel},
		nil,
	},
	ProbeRefused: {
		"offloadctl probe port measures, and fails at the end instead of showing a report: packets went another way, were counted by nothing, or filters changed meanwhile.",
		[]string{"offloadctl explain PORT", "offloadctl flows --tc", "offloadctl get counters"},
		nil,
	},
	ProbeRunNotFound: {
		"offloadctl probe report or diff exits with 3: the name is wrong, the run is older than the last ones, or it was kept elsewhere.",
		[]string{"offloadctl probe runs", "ls -l /var/lib/offloadd/probe"},
		nil,
	},
	ProbeNoAnswer: {
		"offloadctl status lists the pair, and offloadd_probe_lost_total rises as fast as offloadd_probe_sent_total; the pods' own packets may do well, if a policy drops only those of the probe.",
		[]string{"offloadctl probe watch --once -o wide", "offloadctl explain PORT PACKET", "offloadctl get ports --port LPORT", "ps -o args= -C offloadd"},
		nil,
	},
	ProbeOffloadLost: {
		"offloadctl status lists the pair, offloadd_probe_offloaded_ratio has fallen, and the CPUs have more to do; packets are forwarded as before.",
		[]string{"offloadctl probe watch --once -o wide", "offloadctl explain PORT PACKET", lookStatus, "offloadctl diff", lookKernel},
		nil,
	},
	ProbeSlower: {
		"offloadctl status lists the pair; two thousand round trips in a row had a 99th percentile beyond all former ones.",
		[]string{"offloadctl probe watch --once -o wide", lookStatus, lookKernel},
		nil,
	},
	DaemonUnreachable: {
		"offloadctl exits with 4, ADDs fail and are tried again, and the node becomes NotReady; packets are forwarded as before.",
		[]string{"systemctl status offloadd", "ls -l /run/offloadd", "journalctl -t offloadd --since -1h", lookEvents},
		[]string{"systemctl start offloadd"},
	},
	ShuttingDown: {
		"Calls fail and are tried again during a restart or upgrade; if it stays so the daemon hangs at its end.",
		[]string{"systemctl status offloadd", lookLog},
		[]string{"systemctl restart offloadd"},
	},
	Cancelled: {
		"In the log, and in the timeline of a port whose runtime gave up.",
		[]string{lookLog, "offloadctl describe port --slowest"},
		nil,
	},
	DeadlineExceeded: {
		"A call takes as long as its caller lets it, and fails; the message names what was waited for.",
		[]string{lookStatus, "offloadctl describe port --slowest", lookLog},
		nil,
	},
	Internal: {
		"A call fails with words that name no cause of yours.",
		[]string{lookLog, lookStatus, "offloadctl version", lookAudit},
		nil,
	},
}
