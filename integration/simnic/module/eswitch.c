// SPDX-License-Identifier: GPL-2.0
/* The devlink instance: modes of the embedded switch, ports, functions. */
#include <linux/random.h>
#include "simnic.h"

static struct simnic_vport *to_vport(struct devlink_port *port)
{
	return container_of(port, struct simnic_vport, port);
}

/* simnic_representor_add makes the devlink port and the representor, in this order. */
int simnic_representor_add(struct simnic_vport *vport)
{
	struct devlink *devlink = priv_to_devlink(vport->nic);
	struct simnic *nic = vport->nic;
	struct devlink_port_attrs attrs = {};
	int err;

	memset(&vport->port, 0, sizeof(vport->port));
	if (vport->kind != SIMNIC_UPLINK)
		attrs.switch_id = nic->switch_id;
	switch (vport->kind) {
	case SIMNIC_UPLINK:
		attrs.flavour = DEVLINK_PORT_FLAVOUR_PHYSICAL;
		break;
	case SIMNIC_VF:
		attrs.flavour = DEVLINK_PORT_FLAVOUR_PCI_VF;
		attrs.pci_vf.vf = vport->number;
		break;
	case SIMNIC_SF:
		attrs.flavour = DEVLINK_PORT_FLAVOUR_PCI_SF;
		attrs.pci_sf.sf = vport->number;
		break;
	}
	devlink_port_attrs_set(&vport->port, &attrs);
	err = devl_port_register(devlink, &vport->port, vport->index);
	if (err)
		return err;
	if (vport->kind != SIMNIC_UPLINK) {
		err = devl_rate_leaf_create(&vport->port, vport);
		if (err)
			goto port;
	}
	err = simnic_end_add(vport, SIMNIC_REPRESENTOR, nic->dev);
	if (err)
		goto rate;
	devlink_port_type_eth_set(&vport->port, rcu_access_pointer(vport->end[SIMNIC_REPRESENTOR]));
	return 0;
rate:
	if (vport->kind != SIMNIC_UPLINK)
		devl_rate_leaf_destroy(&vport->port);
port:
	devl_port_unregister(&vport->port);
	return err;
}

void simnic_representor_del(struct simnic_vport *vport)
{
	if (!rcu_access_pointer(vport->end[SIMNIC_REPRESENTOR]))
		return;
	devlink_port_type_clear(&vport->port);
	simnic_end_del(vport, SIMNIC_REPRESENTOR);
	if (vport->kind != SIMNIC_UPLINK)
		devl_rate_leaf_destroy(&vport->port);
	devl_port_unregister(&vport->port);
}

static void leave_switchdev(struct simnic *nic)
{
	struct simnic_sf *sf, *next;
	unsigned int i;

	simnic_indirect_set(nic, false);
	simnic_forget(nic); /* those of the uplink, which stays */
	list_for_each_entry_safe(sf, next, &nic->sfs, list)
		simnic_sf_del(sf);
	for (i = nic->num_vfs; i-- > 0;)
		simnic_representor_del(&nic->vfs[i]->vport);
	WRITE_ONCE(nic->mode, DEVLINK_ESWITCH_MODE_LEGACY);
}

static int enter_switchdev(struct simnic *nic)
{
	unsigned int i;
	int err = 0;

	WRITE_ONCE(nic->mode, DEVLINK_ESWITCH_MODE_SWITCHDEV);
	for (i = 0; i < nic->num_vfs && !err; i++)
		err = simnic_representor_add(&nic->vfs[i]->vport);
	if (!err)
		err = simnic_indirect_set(nic, true);
	if (err)
		leave_switchdev(nic);
	return err;
}

/*
 * simnic_reset takes the representors away and makes them anew, as a reset of the firmware does. SFs that were active stay
 * so, but their devices go and come.
 */
int simnic_reset(struct simnic *nic)
{
	struct simnic_sf *sf;
	unsigned int i;
	int err = 0;

	if (nic->mode != DEVLINK_ESWITCH_MODE_SWITCHDEV)
		return -EOPNOTSUPP;
	simnic_indirect_set(nic, false);
	for (i = 0; i < nic->num_vfs; i++)
		simnic_representor_del(&nic->vfs[i]->vport);
	list_for_each_entry(sf, &nic->sfs, list) {
		bool active = sf->state == DEVLINK_PORT_FN_STATE_ACTIVE;

		simnic_sf_deactivate(sf);
		simnic_representor_del(&sf->vport);
		if (active)
			sf->state = DEVLINK_PORT_FN_STATE_ACTIVE;
	}
	for (i = 0; i < nic->num_vfs && !err; i++)
		err = simnic_representor_add(&nic->vfs[i]->vport);
	list_for_each_entry(sf, &nic->sfs, list) {
		if (!err)
			err = simnic_representor_add(&sf->vport);
		if (!err && sf->state == DEVLINK_PORT_FN_STATE_ACTIVE)
			simnic_sf_activate(sf);
	}
	if (!err)
		err = simnic_indirect_set(nic, true);
	if (err)
		leave_switchdev(nic);
	return err;
}

static int mode_get(struct devlink *devlink, u16 *mode)
{
	struct simnic *nic = devlink_priv(devlink);

	*mode = nic->mode;
	return 0;
}

static int mode_set(struct devlink *devlink, u16 mode, struct netlink_ext_ack *extack)
{
	struct simnic *nic = devlink_priv(devlink);

	if (mode != DEVLINK_ESWITCH_MODE_LEGACY && mode != DEVLINK_ESWITCH_MODE_SWITCHDEV)
		return -EINVAL;
	if (mode == nic->mode)
		return 0;
	if (!nic->up)
		return -ENODEV;
	if (simnic_fails(nic, SIMNIC_FAIL_ESWITCH_SET)) {
		NL_SET_ERR_MSG_MOD(extack, "Can't change mode, E-Switch is busy");
		return -EBUSY;
	}
	if (mode == DEVLINK_ESWITCH_MODE_SWITCHDEV)
		return enter_switchdev(nic);
	leave_switchdev(nic);
	return 0;
}

static int inline_mode_get(struct devlink *devlink, u8 *mode)
{
	struct simnic *nic = devlink_priv(devlink);

	*mode = nic->inline_mode;
	return 0;
}

static int inline_mode_set(struct devlink *devlink, u8 mode, struct netlink_ext_ack *extack)
{
	struct simnic *nic = devlink_priv(devlink);

	if (READ_ONCE(nic->num_rules)) {
		NL_SET_ERR_MSG_MOD(extack, "Can't set inline mode when flows are configured");
		return -EOPNOTSUPP;
	}
	nic->inline_mode = mode;
	return 0;
}

static int encap_mode_get(struct devlink *devlink, enum devlink_eswitch_encap_mode *mode)
{
	struct simnic *nic = devlink_priv(devlink);

	*mode = nic->encap_mode;
	return 0;
}

static int encap_mode_set(struct devlink *devlink, enum devlink_eswitch_encap_mode mode, struct netlink_ext_ack *extack)
{
	struct simnic *nic = devlink_priv(devlink);

	if (READ_ONCE(nic->num_rules)) {
		NL_SET_ERR_MSG_MOD(extack, "Can't set encapsulation when flows are configured");
		return -EOPNOTSUPP;
	}
	nic->encap_mode = mode;
	return 0;
}

static int info_get(struct devlink *devlink, struct devlink_info_req *req, struct netlink_ext_ack *extack)
{
	int err = devlink_info_driver_name_put(req, KBUILD_MODNAME);

	return err ?: devlink_info_version_running_put(req, DEVLINK_INFO_VERSION_GENERIC_FW, "0.0");
}

static int port_new(struct devlink *devlink, const struct devlink_port_new_attrs *attrs, struct netlink_ext_ack *extack,
		    unsigned int *index)
{
	struct simnic *nic = devlink_priv(devlink);
	struct simnic_sf *sf;
	int err;

	if (attrs->flavour != DEVLINK_PORT_FLAVOUR_PCI_SF) {
		NL_SET_ERR_MSG_MOD(extack, "Driver supports only SF port addition");
		return -EOPNOTSUPP;
	}
	if (attrs->port_index_valid) {
		NL_SET_ERR_MSG_MOD(extack, "Driver does not support user defined port index assignment");
		return -EOPNOTSUPP;
	}
	if (!attrs->sfnum_valid) {
		NL_SET_ERR_MSG_MOD(extack, "User must provide unique sfnum. Driver does not support auto assignment");
		return -EOPNOTSUPP;
	}
	if (attrs->controller_valid && attrs->controller) {
		NL_SET_ERR_MSG_MOD(extack, "External controller is unsupported");
		return -EOPNOTSUPP;
	}
	if (attrs->pfnum) {
		NL_SET_ERR_MSG_MOD(extack, "Invalid pfnum supplied");
		return -EOPNOTSUPP;
	}
	if (nic->mode != DEVLINK_ESWITCH_MODE_SWITCHDEV) {
		NL_SET_ERR_MSG_MOD(extack, "Port add is only supported in eswitch switchdev mode or SF ports are disabled.");
		return -EOPNOTSUPP;
	}
	if (simnic_fails(nic, SIMNIC_FAIL_PORT_NEW))
		return -EBUSY;
	err = simnic_sf_new(nic, attrs->sfnum, extack, &sf);
	if (!err)
		*index = sf->vport.index;
	return err;
}

static int port_del(struct devlink *devlink, unsigned int index, struct netlink_ext_ack *extack)
{
	struct simnic *nic = devlink_priv(devlink);
	struct simnic_sf *sf;

	if (nic->mode != DEVLINK_ESWITCH_MODE_SWITCHDEV) {
		NL_SET_ERR_MSG_MOD(extack, "Port del is only supported in eswitch switchdev mode or SF ports are disabled.");
		return -EOPNOTSUPP;
	}
	list_for_each_entry(sf, &nic->sfs, list) {
		if (sf->vport.index != index)
			continue;
		if (simnic_fails(nic, SIMNIC_FAIL_PORT_DEL))
			return -EBUSY;
		simnic_sf_del(sf);
		return 0;
	}
	return -ENODEV;
}

static int hw_addr_get(struct devlink_port *port, u8 *addr, int *len, struct netlink_ext_ack *extack)
{
	struct simnic_vport *vport = to_vport(port);

	if (vport->kind == SIMNIC_UPLINK)
		return -EOPNOTSUPP;
	spin_lock(&vport->lock);
	ether_addr_copy(addr, vport->hw_addr);
	spin_unlock(&vport->lock);
	*len = ETH_ALEN;
	return 0;
}

/* As in mlx5, a function that is there keeps its address until its driver is bound again. */
static int hw_addr_set(struct devlink_port *port, const u8 *addr, int len, struct netlink_ext_ack *extack)
{
	struct simnic_vport *vport = to_vport(port);

	if (vport->kind == SIMNIC_UPLINK) {
		NL_SET_ERR_MSG_MOD(extack, "Port doesn't support set hw_addr");
		return -EINVAL;
	}
	if (simnic_fails(vport->nic, SIMNIC_FAIL_HW_ADDR_SET))
		return -EBUSY;
	spin_lock(&vport->lock);
	ether_addr_copy(vport->hw_addr, addr);
	spin_unlock(&vport->lock);
	return 0;
}

static int state_get(struct devlink_port *port, enum devlink_port_fn_state *state, enum devlink_port_fn_opstate *opstate,
		     struct netlink_ext_ack *extack)
{
	struct simnic_vport *vport = to_vport(port);

	if (vport->kind != SIMNIC_SF)
		return -EOPNOTSUPP;
	*state = container_of(vport, struct simnic_sf, vport)->state;
	*opstate = rcu_access_pointer(vport->end[SIMNIC_FUNCTION]) ? DEVLINK_PORT_FN_OPSTATE_ATTACHED :
								     DEVLINK_PORT_FN_OPSTATE_DETACHED;
	return 0;
}

static int state_set(struct devlink_port *port, enum devlink_port_fn_state state, struct netlink_ext_ack *extack)
{
	struct simnic_vport *vport = to_vport(port);
	struct simnic_sf *sf;

	if (vport->kind != SIMNIC_SF) {
		NL_SET_ERR_MSG_MOD(extack, "Function does not support state setting");
		return -EOPNOTSUPP;
	}
	sf = container_of(vport, struct simnic_sf, vport);
	if (state == sf->state)
		return 0;
	if (simnic_fails(vport->nic, SIMNIC_FAIL_STATE_SET))
		return -EBUSY;
	if (state == DEVLINK_PORT_FN_STATE_ACTIVE)
		simnic_sf_activate(sf);
	else
		simnic_sf_deactivate(sf);
	return 0;
}

/* Rates are kept by devlink; nothing is slowed down. */
static int rate_set(struct devlink_rate *rate, void *priv, u64 value, struct netlink_ext_ack *extack)
{
	return 0;
}

/* simnic_start makes the uplink and the wire, in the instance's network namespace. */
int simnic_start(struct simnic *nic)
{
	int err;

	err = simnic_representor_add(&nic->uplink);
	if (err)
		return err;
	err = simnic_end_add(&nic->uplink, SIMNIC_FUNCTION, NULL);
	if (err) {
		simnic_representor_del(&nic->uplink);
		return err;
	}
	nic->up = true;
	return 0;
}

/* simnic_stop removes all functions and ports, and leaves the NIC in legacy mode. */
void simnic_stop(struct simnic *nic)
{
	if (!nic->up)
		return;
	if (nic->mode == DEVLINK_ESWITCH_MODE_SWITCHDEV)
		leave_switchdev(nic);
	simnic_vfs_set(nic, 0);
	simnic_end_del(&nic->uplink, SIMNIC_FUNCTION);
	simnic_representor_del(&nic->uplink);
	WARN_ON(nic->num_rules || !list_empty(&nic->tunnels));
	nic->up = false;
}

static int reload_down(struct devlink *devlink, bool netns_change, enum devlink_reload_action action,
		       enum devlink_reload_limit limit, struct netlink_ext_ack *extack)
{
	simnic_stop(devlink_priv(devlink));
	return 0;
}

static int reload_up(struct devlink *devlink, enum devlink_reload_action action, enum devlink_reload_limit limit,
		     u32 *performed, struct netlink_ext_ack *extack)
{
	*performed = BIT(DEVLINK_RELOAD_ACTION_DRIVER_REINIT);
	return simnic_start(devlink_priv(devlink));
}

static const struct devlink_ops devlink_ops = {
	.reload_actions = BIT(DEVLINK_RELOAD_ACTION_DRIVER_REINIT),
	.reload_down = reload_down,
	.reload_up = reload_up,
	.info_get = info_get,
	.eswitch_mode_get = mode_get,
	.eswitch_mode_set = mode_set,
	.eswitch_inline_mode_get = inline_mode_get,
	.eswitch_inline_mode_set = inline_mode_set,
	.eswitch_encap_mode_get = encap_mode_get,
	.eswitch_encap_mode_set = encap_mode_set,
	.port_new = port_new,
	.port_del = port_del,
	.port_function_hw_addr_get = hw_addr_get,
	.port_function_hw_addr_set = hw_addr_set,
	.port_fn_state_get = state_get,
	.port_fn_state_set = state_set,
	.rate_leaf_tx_share_set = rate_set,
	.rate_leaf_tx_max_set = rate_set,
};

struct simnic *simnic_alloc(struct device *dev, unsigned int id)
{
	struct devlink *devlink;
	struct simnic *nic;

	devlink = devlink_alloc(&devlink_ops, sizeof(*nic), dev);
	if (!devlink)
		return NULL;
	nic = devlink_priv(devlink);
	nic->dev = dev;
	nic->id = id;
	nic->mode = DEVLINK_ESWITCH_MODE_LEGACY;
	nic->inline_mode = DEVLINK_ESWITCH_INLINE_MODE_NONE;
	nic->encap_mode = DEVLINK_ESWITCH_ENCAP_MODE_BASIC;
	nic->switch_id.id_len = 8;
	get_random_bytes(nic->switch_id.id, nic->switch_id.id_len);
	nic->autoprobe = true;
	nic->flower.ct = true;
	nic->flower.ttl = true;
	nic->flower.max_chain = U32_MAX - 1;
	INIT_LIST_HEAD(&nic->sfs);
	ida_init(&nic->sf_slots);
	mutex_init(&nic->rules_lock);
	hash_init(nic->rules);
	INIT_LIST_HEAD(&nic->tunnels);
	simnic_vport_init(&nic->uplink, nic, SIMNIC_UPLINK, 0, SIMNIC_PORT_UPLINK);
	devlink_set_features(devlink, DEVLINK_F_RELOAD);
	return nic;
}
