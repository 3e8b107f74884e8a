// Code generated from OVN_Southbound 20.27.0 (Debian 12, ovn 23.03.1) by libovsdb's modelgen; DO NOT EDIT.

package sbdb

const ControllerEventTable = "Controller_Event"

type (
	ControllerEventEventType = string
)

var (
	ControllerEventEventTypeEmptyLbBackends ControllerEventEventType = "empty_lb_backends"
)

// ControllerEvent defines an object in Controller_Event table
type ControllerEvent struct {
	UUID      string                   `ovsdb:"_uuid"`
	Chassis   *string                  `ovsdb:"chassis"`
	EventInfo map[string]string        `ovsdb:"event_info"`
	EventType ControllerEventEventType `ovsdb:"event_type"`
	SeqNum    int                      `ovsdb:"seq_num"`
}
