// Code generated from OVN_Southbound 20.27.0 (Debian 12, ovn 23.03.1) by libovsdb's modelgen; DO NOT EDIT.

package sbdb

const ChassisTemplateVarTable = "Chassis_Template_Var"

// ChassisTemplateVar defines an object in Chassis_Template_Var table
type ChassisTemplateVar struct {
	UUID      string            `ovsdb:"_uuid"`
	Chassis   string            `ovsdb:"chassis"`
	Variables map[string]string `ovsdb:"variables"`
}
