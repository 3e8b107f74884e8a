// SPDX-License-Identifier: GPL-2.0
/* Netdevs, and the links between two of them. */
#include <linux/ethtool.h>
#include <linux/rtnetlink.h>
#include "simnic.h"

void simnic_vport_init(struct simnic_vport *vport, struct simnic *nic, enum simnic_kind kind, u32 number, unsigned int index)
{
	vport->nic = nic;
	vport->kind = kind;
	vport->number = number;
	vport->index = index;
	spin_lock_init(&vport->lock);
}

/* A link has carrier while both of its ends are there and up. */
static void update_carrier(struct simnic_vport *vport)
{
	struct net_device *dev[SIMNIC_SIDES];
	bool up = true;
	int i;

	for (i = 0; i < SIMNIC_SIDES; i++) {
		dev[i] = rtnl_dereference(vport->end[i]);
		up = up && dev[i] && netif_running(dev[i]);
	}
	for (i = 0; i < SIMNIC_SIDES; i++) {
		if (!dev[i])
			continue;
		if (up)
			netif_carrier_on(dev[i]);
		else
			netif_carrier_off(dev[i]);
	}
}

static int end_open(struct net_device *dev)
{
	struct simnic_end *end = netdev_priv(dev);

	update_carrier(end->vport);
	return 0;
}

static netdev_tx_t end_xmit(struct sk_buff *skb, struct net_device *dev)
{
	struct simnic_end *end = netdev_priv(dev);
	unsigned int len = skb->len;
	struct net_device *far;

	rcu_read_lock();
	far = rcu_dereference(end->vport->end[!end->side]);
	if (!far || !pskb_may_pull(skb, ETH_HLEN)) {
		dev_kfree_skb_any(skb);
		goto lost;
	}
	skb_tx_timestamp(skb);
	if (__dev_forward_skb(far, skb)) /* far is down, or it is too long for far's MTU; skb is gone */
		goto lost;
	if (__netif_rx(skb) != NET_RX_SUCCESS)
		goto lost;
	dev_sw_netstats_tx_add(dev, 1, len);
	dev_sw_netstats_rx_add(far, len);
	rcu_read_unlock();
	return NETDEV_TX_OK;
lost:
	rcu_read_unlock();
	dev_core_stats_tx_dropped_inc(dev);
	return NETDEV_TX_OK;
}

static int end_init(struct net_device *dev)
{
	dev->tstats = netdev_alloc_pcpu_stats(struct pcpu_sw_netstats);
	return dev->tstats ? 0 : -ENOMEM;
}

/* Not before the last reference is gone: Open vSwitch reads the counters of a netdev that has been unregistered. */
static void end_destroy(struct net_device *dev)
{
	free_percpu(dev->tstats);
}

static struct devlink_port *representor_devlink_port(struct net_device *dev)
{
	struct simnic_end *end = netdev_priv(dev);

	return &end->vport->port;
}

/*
 * The uplink is there in both modes, and part of a switch in one only. VFs and SFs have the switch's id as an attribute of
 * their devlink port, and so has devlink's own answer for them.
 */
static int uplink_parent_id(struct net_device *dev, struct netdev_phys_item_id *id)
{
	struct simnic_end *end = netdev_priv(dev);
	struct simnic *nic = end->vport->nic;

	if (READ_ONCE(nic->mode) != DEVLINK_ESWITCH_MODE_SWITCHDEV)
		return -EOPNOTSUPP;
	*id = nic->switch_id;
	return 0;
}

static int representor_set_features(struct net_device *dev, netdev_features_t features)
{
	if ((dev->features & ~features & NETIF_F_HW_TC) && simnic_has_rules(dev)) {
		netdev_err(dev, "Active offloaded tc filters, can't turn hw_tc_offload off\n");
		return -EINVAL;
	}
	return 0;
}

/*
 * What is set of VFs through the uplink: the way before devlink. Under RTNL, as is nic->vfs. In switchdev mode mlx5 refuses VLAN, trust and
 * spoof check; so do we, until vf_config says otherwise.
 */
static struct simnic_vport *vf_of(struct net_device *dev, int vf)
{
	struct simnic_end *end = netdev_priv(dev);
	struct simnic *nic = end->vport->nic;

	if (vf < 0 || vf >= nic->num_vfs)
		return ERR_PTR(-EINVAL);
	return &nic->vfs[vf]->vport;
}

static int uplink_set_vf_mac(struct net_device *dev, int vf, u8 *addr)
{
	struct simnic_vport *vport = vf_of(dev, vf);

	if (IS_ERR(vport))
		return PTR_ERR(vport);
	if (is_multicast_ether_addr(addr))
		return -EINVAL;
	spin_lock(&vport->lock);
	ether_addr_copy(vport->hw_addr, addr);
	spin_unlock(&vport->lock);
	return 0;
}

static int uplink_get_vf_config(struct net_device *dev, int vf, struct ifla_vf_info *info)
{
	struct simnic_vport *vport = vf_of(dev, vf);

	if (IS_ERR(vport))
		return PTR_ERR(vport);
	info->vf = vf;
	spin_lock(&vport->lock);
	ether_addr_copy(info->mac, vport->hw_addr);
	spin_unlock(&vport->lock);
	info->vlan = vport->config.vlan;
	info->qos = vport->config.qos;
	info->vlan_proto = vport->config.vlan ? vport->config.vlan_proto : htons(ETH_P_8021Q);
	info->spoofchk = vport->config.spoofchk;
	info->trusted = vport->config.trust;
	info->linkstate = vport->config.link_state;
	info->min_tx_rate = vport->config.min_rate;
	info->max_tx_rate = vport->config.max_rate;
	return 0;
}

static int uplink_set_vf_vlan(struct net_device *dev, int vf, u16 vlan, u8 qos, __be16 proto)
{
	struct simnic_vport *vport = vf_of(dev, vf);

	if (IS_ERR(vport))
		return PTR_ERR(vport);
	if (vlan && !READ_ONCE(vport->nic->vf_config))
		return -EOPNOTSUPP;
	if (proto != htons(ETH_P_8021Q) && proto != htons(ETH_P_8021AD))
		return -EPROTONOSUPPORT;
	if (vlan > 4095 || qos > 7)
		return -EINVAL;
	vport->config.vlan = vlan;
	vport->config.qos = qos;
	vport->config.vlan_proto = proto;
	return 0;
}

static int uplink_set_vf_spoofchk(struct net_device *dev, int vf, bool on)
{
	struct simnic_vport *vport = vf_of(dev, vf);

	if (IS_ERR(vport))
		return PTR_ERR(vport);
	if (!READ_ONCE(vport->nic->vf_config))
		return -EOPNOTSUPP;
	vport->config.spoofchk = on;
	return 0;
}

static int uplink_set_vf_trust(struct net_device *dev, int vf, bool on)
{
	struct simnic_vport *vport = vf_of(dev, vf);

	if (IS_ERR(vport))
		return PTR_ERR(vport);
	if (!READ_ONCE(vport->nic->vf_config))
		return -EOPNOTSUPP;
	vport->config.trust = on;
	return 0;
}

static int uplink_set_vf_link_state(struct net_device *dev, int vf, int state)
{
	struct simnic_vport *vport = vf_of(dev, vf);

	if (IS_ERR(vport))
		return PTR_ERR(vport);
	if (state < IFLA_VF_LINK_STATE_AUTO || state > IFLA_VF_LINK_STATE_DISABLE)
		return -EINVAL;
	vport->config.link_state = state;
	return 0;
}

static int uplink_set_vf_rate(struct net_device *dev, int vf, int min, int max)
{
	struct simnic_vport *vport = vf_of(dev, vf);

	if (IS_ERR(vport))
		return PTR_ERR(vport);
	vport->config.min_rate = min;
	vport->config.max_rate = max;
	return 0;
}

static const struct net_device_ops representor_ops = {
	.ndo_init = end_init,
	.ndo_open = end_open,
	.ndo_stop = end_open,
	.ndo_start_xmit = end_xmit,
	.ndo_get_stats64 = dev_get_tstats64,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
	.ndo_get_devlink_port = representor_devlink_port,
	.ndo_set_features = representor_set_features,
	.ndo_setup_tc = simnic_setup_tc,
};

static const struct net_device_ops uplink_ops = {
	.ndo_init = end_init,
	.ndo_open = end_open,
	.ndo_stop = end_open,
	.ndo_start_xmit = end_xmit,
	.ndo_get_stats64 = dev_get_tstats64,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
	.ndo_get_devlink_port = representor_devlink_port,
	.ndo_get_port_parent_id = uplink_parent_id,
	.ndo_set_features = representor_set_features,
	.ndo_setup_tc = simnic_setup_tc,
	.ndo_set_vf_mac = uplink_set_vf_mac,
	.ndo_set_vf_vlan = uplink_set_vf_vlan,
	.ndo_set_vf_spoofchk = uplink_set_vf_spoofchk,
	.ndo_set_vf_trust = uplink_set_vf_trust,
	.ndo_set_vf_link_state = uplink_set_vf_link_state,
	.ndo_set_vf_rate = uplink_set_vf_rate,
	.ndo_get_vf_config = uplink_get_vf_config,
};

static const struct net_device_ops function_ops = {
	.ndo_init = end_init,
	.ndo_open = end_open,
	.ndo_stop = end_open,
	.ndo_start_xmit = end_xmit,
	.ndo_get_stats64 = dev_get_tstats64,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
};

static int end_link_ksettings(struct net_device *dev, struct ethtool_link_ksettings *k)
{
	k->base.speed = SPEED_25000;
	k->base.duplex = DUPLEX_FULL;
	k->base.port = PORT_OTHER;
	k->base.autoneg = AUTONEG_DISABLE;
	return 0;
}

static void representor_drvinfo(struct net_device *dev, struct ethtool_drvinfo *info)
{
	struct simnic_end *end = netdev_priv(dev);

	strscpy(info->driver, end->vport->kind == SIMNIC_UPLINK ? "simnic" : "simnic_rep", sizeof(info->driver));
	strscpy(info->bus_info, dev_name(end->vport->nic->dev), sizeof(info->bus_info));
}

static const struct ethtool_ops representor_ethtool_ops = {
	.get_drvinfo = representor_drvinfo,
	.get_link = ethtool_op_get_link,
	.get_link_ksettings = end_link_ksettings,
};

/* ethtool(8) is told the driver and the bus of the parent. */
static const struct ethtool_ops function_ethtool_ops = {
	.get_link = ethtool_op_get_link,
	.get_link_ksettings = end_link_ksettings,
};

struct simnic_vport *simnic_vport_of(const struct net_device *dev)
{
	if (dev->netdev_ops != &representor_ops && dev->netdev_ops != &uplink_ops)
		return NULL;
	return ((struct simnic_end *)netdev_priv(dev))->vport;
}

static void end_setup(struct net_device *dev)
{
	netdev_features_t features = NETIF_F_SG | NETIF_F_FRAGLIST | NETIF_F_HW_CSUM | NETIF_F_RXCSUM | NETIF_F_HIGHDMA |
				     NETIF_F_GSO_SOFTWARE;

	ether_setup(dev);
	dev->priv_flags &= ~IFF_TX_SKB_SHARING;
	dev->priv_flags |= IFF_LIVE_ADDR_CHANGE | IFF_NO_QUEUE;
	dev->features |= features | NETIF_F_LLTX;
	dev->hw_features |= features;
	dev->vlan_features |= features;
	dev->hw_enc_features |= features;
	dev->max_mtu = SIMNIC_MAX_MTU;
	dev->needs_free_netdev = true;
	dev->priv_destructor = end_destroy;
}

/*
 * There is no udev in a guest to give names. Another netdev may have taken ours: the netdev of a VF that somebody renamed; then it is
 * eth0 or the next.
 */
static void end_name(struct simnic_vport *vport, enum simnic_side side, char name[IFNAMSIZ])
{
	unsigned int id = vport->nic->id;

	switch (vport->kind) {
	case SIMNIC_UPLINK:
		snprintf(name, IFNAMSIZ, side == SIMNIC_REPRESENTOR ? "sn%up0" : "sn%uwire", id);
		return;
	case SIMNIC_VF:
		snprintf(name, IFNAMSIZ, side == SIMNIC_REPRESENTOR ? "sn%upf0vf%u" : "sn%uv%u", id, vport->number);
		return;
	case SIMNIC_SF:
		snprintf(name, IFNAMSIZ, side == SIMNIC_REPRESENTOR ? "sn%upf0sf%u" : "sn%us%u", id, vport->number);
		return;
	}
}

/* simnic_end_add makes the netdev of a side; parent is the device that it is shown under, or NULL. */
int simnic_end_add(struct simnic_vport *vport, enum simnic_side side, struct device *parent)
{
	struct net *net = devlink_net(priv_to_devlink(vport->nic));
	struct simnic_end *end;
	struct net_device *dev;
	char name[IFNAMSIZ];
	u8 addr[ETH_ALEN];
	int err;

	if (simnic_fails(vport->nic, SIMNIC_FAIL_NETDEV))
		return -ENOMEM;
	end_name(vport, side, name);
	dev = alloc_netdev(sizeof(*end), name, NET_NAME_ENUM, end_setup);
	if (!dev)
		return -ENOMEM;
	end = netdev_priv(dev);
	end->vport = vport;
	end->side = side;
	dev_net_set(dev, net);
	if (parent)
		SET_NETDEV_DEV(dev, parent);

	eth_zero_addr(addr);
	if (side == SIMNIC_FUNCTION && vport->kind != SIMNIC_UPLINK) {
		spin_lock(&vport->lock);
		ether_addr_copy(addr, vport->hw_addr);
		spin_unlock(&vport->lock);
	}
	if (is_zero_ether_addr(addr))
		eth_hw_addr_random(dev);
	else
		eth_hw_addr_set(dev, addr);

	if (side == SIMNIC_REPRESENTOR) {
		dev->netdev_ops = vport->kind == SIMNIC_UPLINK ? &uplink_ops : &representor_ops;
		dev->ethtool_ops = &representor_ethtool_ops;
		dev->features |= NETIF_F_HW_TC;
		dev->hw_features |= NETIF_F_HW_TC;
	} else {
		dev->netdev_ops = &function_ops;
		dev->ethtool_ops = &function_ethtool_ops;
	}

	rtnl_lock();
	if (__dev_get_by_name(net, name))
		strscpy(dev->name, "eth%d", IFNAMSIZ);
	netif_carrier_off(dev);
	err = register_netdevice(dev);
	if (err) {
		rtnl_unlock();
		free_netdev(dev);
		return err;
	}
	rcu_assign_pointer(vport->end[side], dev);
	update_carrier(vport);
	rtnl_unlock();
	return 0;
}

/* simnic_end_del removes the netdev of a side, wherever it has been moved to, if there is one. */
void simnic_end_del(struct simnic_vport *vport, enum simnic_side side)
{
	struct net_device *dev;

	rtnl_lock();
	dev = rtnl_dereference(vport->end[side]);
	if (dev) {
		RCU_INIT_POINTER(vport->end[side], NULL);
		update_carrier(vport);
		unregister_netdevice(dev); /* waits for those who still send through the pointer */
	}
	rtnl_unlock();
}
