// Code generated from OVN_Southbound 20.27.0 (Debian 12, ovn 23.03.1) by libovsdb's modelgen; DO NOT EDIT.

package sbdb

const RBACRoleTable = "RBAC_Role"

// RBACRole defines an object in RBAC_Role table
type RBACRole struct {
	UUID        string            `ovsdb:"_uuid"`
	Name        string            `ovsdb:"name"`
	Permissions map[string]string `ovsdb:"permissions"`
}
