package devlink

import "errors"

// What a refusal amounts to: errors.Is of an Error says which of these it is. The errno is there too, but its meaning depends on the
// command and the driver.
var (
	ErrUnsupported = errors.New("not supported")        // by the kernel, the driver, or in this mode: trying again does not help
	ErrBusy        = errors.New("busy")                 // something has to be over first: trying again later may help
	ErrGone        = errors.New("gone")                 // the device, port or node does not exist
	ErrExists      = errors.New("exists")               // what is to be made is there already
	ErrFull        = errors.New("full")                 // the device has no room for another
	ErrInvalid     = errors.New("invalid")              // the kernel or the driver does not take a value
	ErrPermission  = errors.New("no permission")        // CAP_NET_ADMIN is missing
	ErrFailed      = errors.New("the device failed")    // firmware refused, or did not answer the driver
	ErrUnanswered  = errors.New("the kernel is silent") // ctx ended first: it may or may not have been done, or may be done later
)

// An Error is a request that was not done.
type Error struct {
	Request   string // as arguments of devlink(8): "port add pci/0000:03:00.0 flavour pcisf pfnum 0 sfnum 88"
	Err       error  // a unix.Errno, or why the context ended
	Kind      error  // one of the errors above, nil: none of them
	Meaning   string // what the errno means for this request, "" if that goes without saying
	Attribute string // what the kernel found fault with, in the words of devlink(8); "" if it did not say
	Message   string // the kernel's or the driver's explanation, or ""
}

func (e *Error) Error() string {
	s := "devlink " + e.Request + ": " + e.Err.Error()
	if e.Meaning != "" {
		s += ": " + e.Meaning
	}
	switch {
	case e.Attribute != "" && e.Message != "":
		s += " (" + e.Attribute + ": " + e.Message + ")"
	case e.Attribute != "" || e.Message != "":
		s += " (" + e.Attribute + e.Message + ")"
	}
	return s
}

// Unwrap lets errors.Is find the kind and the errno.
func (e *Error) Unwrap() []error {
	if e.Kind == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.Kind}
}

// Errno values of Linux that requests are refused with, asm-generic/errno.h.
const (
	ePERM       = 1
	eNOENT      = 2
	eIO         = 5
	eAGAIN      = 11
	eNOMEM      = 12
	eACCES      = 13
	eBUSY       = 16
	eEXIST      = 17
	eNODEV      = 19
	eINVAL      = 22
	eNOSPC      = 28
	eRANGE      = 34
	eOPNOTSUPP  = 95
	eTIMEDOUT   = 110
	eINPROGRESS = 115
	eREMOTEIO   = 121
)

type verdict struct {
	kind    error
	meaning string
}

// general is what an errno means if verdicts does not say otherwise for a command.
var general = map[int]verdict{
	ePERM:       {ErrPermission, "it takes CAP_NET_ADMIN"},
	eACCES:      {ErrPermission, "it takes CAP_NET_ADMIN"},
	eNODEV:      {ErrGone, "no such device in this network namespace"},
	eNOENT:      {ErrGone, ""},
	eOPNOTSUPP:  {ErrUnsupported, "the driver does not have it"},
	eBUSY:       {ErrBusy, ""},
	eAGAIN:      {ErrBusy, ""},
	eINPROGRESS: {ErrBusy, ""},
	eEXIST:      {ErrExists, ""},
	eNOSPC:      {ErrFull, ""},
	eNOMEM:      {ErrFull, "the kernel or the device has no memory for it"},
	eINVAL:      {ErrInvalid, ""},
	eRANGE:      {ErrInvalid, "out of range"},
	eIO:         {ErrFailed, ""},
	eREMOTEIO:   {ErrFailed, "the firmware refuses"},
	eTIMEDOUT:   {ErrFailed, "the firmware does not answer"},
}

const noPort = "no such device in this network namespace, or no such port"

// verdicts are what net/devlink and mlx5 mean by an errno: drivers/net/ethernet/mellanox/mlx5/core/sf/devlink.c, eswitch_offloads.c.
var verdicts = map[uint8]map[int]verdict{
	cmdPortGet: {eNODEV: {ErrGone, noPort}},
	cmdPortNew: {
		eOPNOTSUPP: {ErrUnsupported, "the driver makes no such port: subfunctions need firmware that has them, a kernel that has them, and an eswitch in switchdev mode"},
		eEXIST:     {ErrExists, "the sfnum is in use, or its last function is not yet torn down"},
		eNOSPC:     {ErrFull, "the device has no subfunction left"},
		eINVAL:     {ErrInvalid, "the flavour, pfnum, sfnum or index"},
	},
	cmdPortDel: {
		eNODEV:     {ErrGone, noPort},
		eOPNOTSUPP: {ErrUnsupported, "the driver deletes no ports, or the eswitch is not in switchdev mode"},
	},
	cmdPortSet: {
		eNODEV:     {ErrGone, noPort},
		eOPNOTSUPP: {ErrUnsupported, "the driver cannot set it for this port, or not in the eswitch's mode"},
		eBUSY:      {ErrBusy, "the function is inactive, but its driver has not let go of it"},
	},
	cmdEswitchGet: {eOPNOTSUPP: {ErrUnsupported, "the device has no embedded switch"}},
	cmdEswitchSet: {
		eOPNOTSUPP: {ErrUnsupported, "the device has no embedded switch, or not this mode, or not while it has flows"},
		eBUSY:      {ErrBusy, "rate nodes exist, or something uses the switch"},
		eINVAL:     {ErrInvalid, "the driver does not take the mode"},
		eRANGE:     {ErrUnsupported, "this kernel does not know the mode"},
	},
	cmdReload: {eOPNOTSUPP: {ErrUnsupported, "the driver cannot reload, or not like this"}},
	cmdParamGet: {
		eINVAL: {ErrUnsupported, "the driver has no such parameter"},
	},
	cmdParamSet: {
		eINVAL:     {ErrInvalid, "the driver has no such parameter, or one of another type, or does not take the value"},
		eOPNOTSUPP: {ErrUnsupported, "the parameter does not have this cmode"},
	},
	cmdInfoGet: {eOPNOTSUPP: {ErrUnsupported, "the driver tells nothing"}},
	cmdReporterGet: {
		eINVAL: {ErrGone, "no such reporter"},
	},
	cmdReporterSet: {
		eINVAL:     {ErrGone, "no such reporter"},
		eOPNOTSUPP: {ErrUnsupported, "the reporter does not have it"},
	},
	cmdReporterRecover: {
		eINVAL:     {ErrGone, "no such reporter"},
		eOPNOTSUPP: {ErrUnsupported, "the reporter cannot recover"},
	},
	cmdRateGet: {eNODEV: {ErrGone, "no such device in this network namespace, or it has no such port or node: only an eswitch in switchdev mode has rates"}},
	cmdRateSet: {
		eNODEV: {ErrGone, "no such device, port, node or parent: only an eswitch in switchdev mode has rates"},
		eBUSY:  {ErrBusy, "it has a parent already"},
		eEXIST: {ErrInvalid, "the parent is below it"},
	},
	cmdRateNew: {
		eEXIST: {ErrExists, "a node of this name"},
		eINVAL: {ErrInvalid, "a name has to be more than a number"},
	},
	cmdRateDel: {
		eNODEV: {ErrGone, "no such device in this network namespace, or no such node"},
		eBUSY:  {ErrBusy, "it has children"},
	},
}

// refused returns the error for a request that the kernel refused with errno, which is err.
func refused(r request, errno int, err error, message string, offset int) *Error {
	v, ok := verdicts[r.command][errno]
	if !ok {
		v = general[errno]
	}
	e := &Error{Request: r.text, Err: err, Kind: v.kind, Meaning: v.meaning, Message: message}
	// Offsets count from the beginning of the message: struct nlmsghdr, struct genlmsghdr.
	const headers = 16 + 4
	if offset >= headers {
		e.Attribute = r.attributeAt(offset - headers)
	}
	if errno == eINVAL && (e.Attribute == functionNames[functionCaps] || e.Attribute == functionNames[functionMaxIOEQs]) &&
		(message == unknownAttribute || message == unparsedFunction) {
		e.Kind, e.Meaning = ErrUnsupported, "this kernel does not know the attribute"
	}
	return e
}

// What kernels say of an attribute within PORT_FUNCTION that they do not know: lib/nlattr.c, which net/devlink up to 6.1 talks over.
const (
	unknownAttribute = "Unknown attribute type"
	unparsedFunction = "leftover: Fail to parse port function attributes"
)
