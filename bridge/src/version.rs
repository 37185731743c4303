//! The two versions of MQTT that the bridge speaks: 5, and 3.1.1 to a broker that refuses 5. The bridge
//! thinks in packets of MQTT 5; here they are written and read in the version of the connection, without
//! what 3.1.1 has no place for. <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html>

use std::fmt;

use bytes::BytesMut;
use rumqttc::mqttbytes::{self as mqtt311, v4};
use rumqttc::v5::mqttbytes::{self as mqtt5, v5};

use crate::packet::PacketError;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Version {
    /// MQTT 5.
    #[default]
    V5,
    /// MQTT 3.1.1: no properties, no receive maximum, no options of subscriptions, hardly a reason.
    V311,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V5 => "MQTT 5",
            Self::V311 => "MQTT 3.1.1",
        })
    }
}

impl Version {
    /// Appends a packet.
    ///
    /// # Errors
    /// If it can't be written, since it is larger than MQTT's packets can be.
    pub fn write(self, packet: v5::Packet, out: &mut BytesMut) -> Result<(), PacketError> {
        let refused = |error: String| PacketError::Unwritable(error);
        match self {
            Self::V5 => packet.write(out, None).map_err(|error| refused(error.to_string()))?,
            Self::V311 => {
                let packet = without_properties(packet)?;
                packet.write(out, usize::MAX).map_err(|error| refused(error.to_string()))?
            }
        };
        Ok(())
    }

    /// Reads one whole frame that is no PUBLISH.
    ///
    /// # Errors
    /// If it is malformed, or nothing that a broker sends.
    pub fn read(self, frame: &[u8]) -> Result<v5::Packet, PacketError> {
        let malformed = |error: String| PacketError::Malformed(error);
        let mut frame = BytesMut::from(frame);
        match self {
            Self::V5 => v5::Packet::read(&mut frame, None).map_err(|error| malformed(error.to_string())),
            Self::V311 => {
                let packet = v4::Packet::read(&mut frame, usize::MAX);
                with_reasons(packet.map_err(|error| malformed(error.to_string()))?)
            }
        }
    }
}

/// What the bridge sends, in 3.1.1. Sessions are to be kept unless `clean_start`.
fn without_properties(packet: v5::Packet) -> Result<v4::Packet, PacketError> {
    Ok(match packet {
        v5::Packet::Connect(connect, _, login) => v4::Packet::Connect(v4::Connect {
            protocol: mqtt311::Protocol::V4,
            keep_alive: connect.keep_alive,
            client_id: connect.client_id,
            clean_session: connect.clean_start,
            last_will: None,
            login: login.map(|login| v4::Login { username: login.username, password: login.password }),
        }),
        v5::Packet::Publish(publish) => {
            let topic = String::from_utf8_lossy(&publish.topic);
            let mut plain = v4::Publish::from_bytes(topic, qos(publish.qos), publish.payload);
            plain.pkid = publish.pkid;
            v4::Packet::Publish(plain)
        }
        v5::Packet::Subscribe(subscribe) => {
            let filters = subscribe.filters.into_iter();
            let filters = filters.map(|filter| v4::SubscribeFilter::new(filter.path, qos(filter.qos)));
            let mut plain = v4::Subscribe::new_many(filters);
            plain.pkid = subscribe.pkid;
            v4::Packet::Subscribe(plain)
        }
        v5::Packet::Unsubscribe(unsubscribe) => {
            v4::Packet::Unsubscribe(v4::Unsubscribe { pkid: unsubscribe.pkid, topics: unsubscribe.filters })
        }
        v5::Packet::Disconnect(_) => v4::Packet::Disconnect,
        v5::Packet::PingReq(_) => v4::Packet::PingReq,
        other => return Err(PacketError::Unwritable(format!("the bridge does not send {other:?}"))),
    })
}

/// What a broker sends in 3.1.1, with the reasons that it can only mean.
fn with_reasons(packet: v4::Packet) -> Result<v5::Packet, PacketError> {
    Ok(match packet {
        v4::Packet::ConnAck(answer) => v5::Packet::ConnAck(v5::ConnAck {
            session_present: answer.session_present,
            code: match answer.code {
                v4::ConnectReturnCode::Success => v5::ConnectReturnCode::Success,
                v4::ConnectReturnCode::RefusedProtocolVersion => {
                    v5::ConnectReturnCode::UnsupportedProtocolVersion
                }
                v4::ConnectReturnCode::BadClientId => v5::ConnectReturnCode::ClientIdentifierNotValid,
                v4::ConnectReturnCode::ServiceUnavailable => v5::ConnectReturnCode::ServerUnavailable,
                v4::ConnectReturnCode::BadUserNamePassword => v5::ConnectReturnCode::BadUserNamePassword,
                v4::ConnectReturnCode::NotAuthorized => v5::ConnectReturnCode::NotAuthorized,
            },
            properties: None,
        }),
        v4::Packet::SubAck(answer) => {
            let codes = answer.return_codes.into_iter().map(|code| match code {
                v4::SubscribeReasonCode::Success(mqtt311::QoS::AtMostOnce) => {
                    v5::SubscribeReasonCode::Success(mqtt5::QoS::AtMostOnce)
                }
                v4::SubscribeReasonCode::Success(mqtt311::QoS::AtLeastOnce) => {
                    v5::SubscribeReasonCode::Success(mqtt5::QoS::AtLeastOnce)
                }
                v4::SubscribeReasonCode::Success(mqtt311::QoS::ExactlyOnce) => {
                    v5::SubscribeReasonCode::Success(mqtt5::QoS::ExactlyOnce)
                }
                v4::SubscribeReasonCode::Failure => v5::SubscribeReasonCode::Failure,
            });
            v5::Packet::SubAck(v5::SubAck {
                pkid: answer.pkid,
                return_codes: codes.collect(),
                properties: None,
            })
        }
        v4::Packet::UnsubAck(answer) => {
            let reasons = vec![v5::UnsubAckReason::Success];
            v5::Packet::UnsubAck(v5::UnsubAck { pkid: answer.pkid, reasons, properties: None })
        }
        v4::Packet::PubAck(answer) => v5::Packet::PubAck(v5::PubAck::new(answer.pkid, None)),
        v4::Packet::PubRel(release) => v5::Packet::PubRel(v5::PubRel::new(release.pkid, None)),
        v4::Packet::PingResp => v5::Packet::PingResp(v5::PingResp),
        other => return Err(PacketError::Malformed(format!("a broker does not send {other:?}"))),
    })
}

fn qos(qos: mqtt5::QoS) -> mqtt311::QoS {
    match qos {
        mqtt5::QoS::AtMostOnce => mqtt311::QoS::AtMostOnce,
        mqtt5::QoS::AtLeastOnce => mqtt311::QoS::AtLeastOnce,
        mqtt5::QoS::ExactlyOnce => mqtt311::QoS::ExactlyOnce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(packet: v5::Packet) -> BytesMut {
        let mut out = BytesMut::new();
        Version::V311.write(packet, &mut out).expect("it can be written");
        out
    }

    #[test]
    fn what_the_bridge_sends_is_as_3_1_1_has_it() {
        let connect = v5::Connect {
            keep_alive: 30,
            client_id: "b".into(),
            clean_start: false,
            properties: Some(v5::ConnectProperties::new()),
        };
        let login = Some(v5::Login { username: "u".into(), password: "p".into() });
        assert_eq!(
            written(v5::Packet::Connect(connect, None, login))[..],
            // 0xc0: a user name, a password, and a session to be kept.
            *b"\x10\x13\0\x04MQTT\x04\xc0\0\x1e\0\x01b\0\x01u\0\x01p"
        );
        let mut filter = v5::Filter::new("a", mqtt5::QoS::AtLeastOnce);
        filter.nolocal = true;
        let properties = v5::SubscribeProperties { id: Some(7), user_properties: Vec::new() };
        let mut subscribe = v5::Subscribe::new(filter, Some(properties));
        subscribe.pkid = 5;
        assert_eq!(written(v5::Packet::Subscribe(subscribe))[..], *b"\x82\x06\0\x05\0\x01a\x01");
        let mut unsubscribe = v5::Unsubscribe::new("a", None);
        unsubscribe.pkid = 6;
        assert_eq!(written(v5::Packet::Unsubscribe(unsubscribe))[..], *b"\xa2\x05\0\x06\0\x01a");
        let mut publish = v5::Publish::new("a", mqtt5::QoS::AtLeastOnce, "xy", None);
        publish.pkid = 7;
        assert_eq!(written(v5::Packet::Publish(publish))[..], *b"\x32\x07\0\x01a\0\x07xy");
        let disconnect = v5::Disconnect::new(v5::DisconnectReasonCode::NormalDisconnection);
        assert_eq!(written(v5::Packet::Disconnect(disconnect))[..], [0xe0, 0]);
        assert_eq!(written(v5::Packet::PingReq(v5::PingReq))[..], [0xc0, 0]);
    }

    #[test]
    fn what_a_broker_sends_in_3_1_1_is_understood() {
        let read = |frame: &[u8]| Version::V311.read(frame).expect("a packet");
        let connack = |session_present, code| {
            v5::Packet::ConnAck(v5::ConnAck { session_present, code, properties: None })
        };
        assert_eq!(read(&[0x20, 2, 1, 0]), connack(true, v5::ConnectReturnCode::Success));
        let refused = connack(false, v5::ConnectReturnCode::UnsupportedProtocolVersion);
        assert_eq!(read(&[0x20, 2, 0, 1]), refused);
        assert_eq!(read(&[0x20, 2, 0, 5]), connack(false, v5::ConnectReturnCode::NotAuthorized));
        let suback =
            |code| v5::Packet::SubAck(v5::SubAck { pkid: 9, return_codes: vec![code], properties: None });
        let granted = v5::SubscribeReasonCode::Success(mqtt5::QoS::ExactlyOnce);
        assert_eq!(read(&[0x90, 3, 0, 9, 2]), suback(granted));
        assert_eq!(read(&[0x90, 3, 0, 9, 0x80]), suback(v5::SubscribeReasonCode::Failure));
        assert!(matches!(read(&[0xb0, 2, 0, 9]), v5::Packet::UnsubAck(answer) if answer.pkid == 9));
        assert_eq!(read(&[0x40, 2, 0, 9]), v5::Packet::PubAck(v5::PubAck::new(9, None)));
        assert_eq!(read(&[0x62, 2, 0, 9]), v5::Packet::PubRel(v5::PubRel::new(9, None)));
        assert_eq!(read(&[0xd0, 0]), v5::Packet::PingResp(v5::PingResp));
        for wrong in [&[0x20, 2, 0, 9][..], &[0x90, 3, 0, 9, 3], &[0xe0, 0], &[0xc0, 0]] {
            assert!(Version::V311.read(wrong).is_err(), "{wrong:?}");
        }
    }
}
