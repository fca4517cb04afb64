// A DNS server for the Services of a cluster, and for nothing else.
package main

import (
	"net"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
)

type names struct {
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
}

// The addresses of a name; false where there is no such name.
func (known names) find(name string) ([]net.IP, bool) {
	rest, ours := strings.CutSuffix(strings.ToLower(strings.TrimSuffix(name, ".")), ".svc.cluster.local")
	if !ours {
		return nil, false
	}
	parts := strings.Split(rest, ".")
	host := ""
	if len(parts) == 3 {
		host, parts = parts[0], parts[1:]
	}
	if len(parts) != 2 {
		return nil, false
	}
	service, err := known.services.Services(parts[1]).Get(parts[0])
	if err != nil {
		return nil, false
	}
	if host == "" && service.Spec.ClusterIP != corev1.ClusterIPNone {
		return []net.IP{net.ParseIP(service.Spec.ClusterIP)}, true
	}
	found := []net.IP{}
	selector := labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: parts[0]})
	slices, _ := known.slices.EndpointSlices(parts[1]).List(selector)
	for _, slice := range slices {
		for _, endpoint := range slice.Endpoints {
			ready := endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready
			named := host == "" || (endpoint.Hostname != nil && *endpoint.Hostname == host)
			if !ready || !named {
				continue
			}
			for _, address := range endpoint.Addresses {
				found = append(found, net.ParseIP(address))
			}
		}
	}
	return found, len(found) > 0
}

func (known names) answer(packet []byte) ([]byte, error) {
	var parser dnsmessage.Parser
	header, err := parser.Start(packet)
	if err != nil {
		return nil, err
	}
	question, err := parser.Question()
	if err != nil {
		return nil, err
	}
	addresses, isKnown := known.find(question.Name.String())
	reply := dnsmessage.Header{
		ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true,
	}
	if !isKnown {
		reply.RCode = dnsmessage.RCodeNameError
	}
	message := dnsmessage.Message{Header: reply, Questions: []dnsmessage.Question{question}}
	for _, each := range addresses {
		if address := each.To4(); address != nil && question.Type == dnsmessage.TypeA {
			message.Answers = append(message.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class, TTL: 5},
				Body:   &dnsmessage.AResource{A: [4]byte(address)},
			})
		}
	}
	return message.Pack()
}

func serveNames(kubeconfig, listen string) {
	factory := informers.NewSharedInformerFactory(client(kubeconfig), 0)
	known := names{factory.Core().V1().Services().Lister(), factory.Discovery().V1().EndpointSlices().Lister()}
	factory.Start(nil)
	factory.WaitForCacheSync(nil)
	connection, err := net.ListenPacket("udp", listen)
	check(err)
	for buffer := make([]byte, 4096); ; {
		size, from, err := connection.ReadFrom(buffer)
		check(err)
		if reply, err := known.answer(buffer[:size]); err == nil {
			_, _ = connection.WriteTo(reply, from)
		}
	}
}
