package ovsdb

//go:generate go run ./internal/gen -package sbdb -schema /usr/share/ovn/ovn-sb.ovsschema -version 20.27.0 -release "Debian 12, ovn 23.03.1"
//go:generate go run ./internal/gen -package vswitchdb -schema /usr/share/openvswitch/vswitch.ovsschema -version 8.3.1 -release "Debian 12, openvswitch 3.1.0"
