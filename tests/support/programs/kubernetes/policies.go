// kube-router's controller of NetworkPolicies, alone: it writes them into iptables.
package main

import (
	"log"
	"sync"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

func client(kubeconfig string) kubernetes.Interface {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	check(err)
	return kubernetes.NewForConfigOrDie(config)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func enforcePolicies(kubeconfig, services, node string) {
	client := client(kubeconfig)
	config := options.NewKubeRouterConfig()
	config.ClusterIPCIDRs = []string{services}
	config.EnableIPv4 = true
	config.RunFirewall = true
	config.HostnameOverride = node
	factory := informers.NewSharedInformerFactory(client, 0)
	pods := factory.Core().V1().Pods().Informer()
	namespaces := factory.Core().V1().Namespaces().Informer()
	policies := factory.Networking().V1().NetworkPolicies().Informer()
	stop := make(chan struct{})
	factory.Start(stop)
	factory.WaitForCacheSync(stop)
	tables, sets, err := netpol.NewIPTablesHandlers(config)
	check(err)
	var mutex sync.Mutex
	controller, err := netpol.NewNetworkPolicyController(client, config, pods, policies, namespaces, &mutex, tables, sets)
	check(err)
	_, err = pods.AddEventHandler(controller.PodEventHandler)
	check(err)
	_, err = namespaces.AddEventHandler(controller.NamespaceEventHandler)
	check(err)
	_, err = policies.AddEventHandler(controller.NetworkPolicyEventHandler)
	check(err)
	beats := make(chan *healthcheck.ControllerHeartbeat, 10)
	go func() {
		for range beats {
		}
	}()
	var running sync.WaitGroup
	running.Add(1)
	controller.Run(beats, stop, &running)
}
